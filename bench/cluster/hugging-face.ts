// A scenario's model as Hugging Face names its sizes, for processes of PyTorch. Knows nothing of what they do with it.
import { paddedVocabulary } from "../../core/models/sizes.ts"
import type { ModelSettings } from "../../scenarios/sections.ts"

type Gpt2 = Extract<ModelSettings, { readonly gpt2: unknown }>["gpt2"]

/** Of GPT2Config. */
export const gpt2Sizes = ({
  layers,
  width,
  heads,
  vocabulary,
  context
}: Pick<Gpt2, "layers" | "width" | "heads" | "vocabulary" | "context">) => ({
  n_layer: layers,
  n_embd: width,
  n_head: heads,
  n_positions: context,
  vocab_size: vocabulary
})

/** A model, and what a step of a rank is of. */
export interface HuggingFaceModel {
  readonly family: "gpt2" | "llama"
  /** Fields of GPT2Config or LlamaConfig; tables have as many rows as ours, padding included. */
  readonly sizes: Readonly<Record<string, number | boolean>>
  /** Tokens are below it. */
  readonly vocabulary: number
  readonly batch: number
  readonly context: number
}

/** Throws Error for a model that is neither a GPT-2 nor a Llama. */
export const huggingFaceModel = (model: ModelSettings): HuggingFaceModel => {
  if ("gpt2" in model) {
    const { vocabulary, vocabularyMultiple, batch, context } = model.gpt2
    const rows = paddedVocabulary(vocabulary, vocabularyMultiple)
    const sizes = gpt2Sizes({ ...model.gpt2, vocabulary: rows })
    return { family: "gpt2", sizes, vocabulary, batch, context }
  }
  if ("llama" in model) {
    const { layers, width, heads, kvHeads, headWidth, ffnWidth, tied } = model.llama
    const { vocabulary, vocabularyMultiple, batch, context } = model.llama
    const sizes = {
      num_hidden_layers: layers,
      hidden_size: width,
      intermediate_size: ffnWidth,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads ?? heads,
      ...(headWidth === undefined ? {} : { head_dim: headWidth }),
      max_position_embeddings: context,
      vocab_size: paddedVocabulary(vocabulary, vocabularyMultiple),
      tie_word_embeddings: tied
    }
    return { family: "llama", sizes, vocabulary, batch, context }
  }
  throw new Error("model: expected {gpt2} or {llama} with its sizes, which PyTorch is started with")
}
