// GPT-2 124M as it is trained at full speed: bfloat16 layers.
import { gpt2 } from "../../core/models/gpt2.ts"

/** `multiple`: the vocabulary is padded to one of it. */
export const gpt2At = ({
  layers = 12,
  vocabulary = 50257,
  multiple = 64,
  context,
  batch
}: {
  readonly layers?: number
  readonly vocabulary?: number
  readonly multiple?: number
  readonly context: number
  readonly batch: number
}) =>
  gpt2({
    layers,
    width: 768,
    heads: 12,
    vocabulary,
    vocabularyMultiple: multiple,
    context,
    batch,
    activationDtype: "bfloat16",
    parameterDtype: "bfloat16"
  })
