// GPT-2 as Hugging Face's GPT2LMHeadModel, without dropout. The output layer shares the token embedding's weight.
import { decoderGraph, type TrainedSizes } from "./decoder-graph.ts"
import { gpt2Layer } from "./decoder-layer.ts"
import type { LayerGraph } from "./layer-graph.ts"

/** Sizes of a GPT-2. */
export type Gpt2Config = TrainedSizes

/**
 * GPT-2's layers, one per leaf module; attention proper is the layer `attn`. Hugging Face's Conv1D stores the transpose of a weight.
 * GPT-2 124M is {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024}: 124,439,808 parameters.
 * Throws RangeError for sizes that are no positive whole numbers, or heads that do not divide the width.
 */
export const gpt2 = (config: Gpt2Config): LayerGraph => {
  const { width, heads } = config
  return decoderGraph(
    {
      name: "gpt2",
      style: gpt2Layer,
      modules: { embedding: "transformer.wte", blocks: "transformer.h", norm: "transformer.ln_f" },
      positions: { learned: "transformer.wpe" },
      tied: true,
      feedForward: ({ graph, layer, project }, x) => {
        const y = project(x, "mlp.c_fc", 4 * width)
        layer("mlp.act")
        return project(graph.gelu(y), "mlp.c_proj", width)
      }
    },
    { ...config, kvHeads: heads }
  )
}
