// GPT-2 124M as it is trained at full speed: bfloat16 layers, where nothing else is asked for.
import { gpt2 } from "../../core/models/gpt2.ts"

/** `multiple`: the vocabulary is padded to one of it. */
export const gpt2At = ({
  layers = 12,
  vocabulary = 50257,
  multiple = 64,
  context,
  batch,
  dtype = "bfloat16"
}: {
  readonly layers?: number
  readonly vocabulary?: number
  readonly multiple?: number
  readonly context: number
  readonly batch: number
  readonly dtype?: "bfloat16" | "float16" | "float32"
}) =>
  gpt2({
    layers,
    width: 768,
    heads: 12,
    vocabulary,
    vocabularyMultiple: multiple,
    context,
    batch,
    activationDtype: dtype,
    parameterDtype: dtype
  })
