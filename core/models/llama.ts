// Llama-style models as Hugging Face's LlamaForCausalLM: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases.
import { decoderGraph, type TrainedSizes } from "./decoder-graph.ts"
import { denseFeedForward, denseWeightShapes, llamaLayer } from "./decoder-layer.ts"
import type { LayerGraph } from "./layer-graph.ts"
import { checkSizes } from "./sizes.ts"

/** Sizes of a Llama. */
export interface LlamaConfig extends TrainedSizes {
  readonly kvHeads: number
  /** Default: width / heads. */
  readonly headWidth?: number
  readonly ffnWidth: number
  /** The output layer shares the embedding's weight. */
  readonly tied: boolean
  /** Default `llamaRopeBase`. */
  readonly ropeBase?: number
}

/** Base of the rotary angles where a model says none. */
export const llamaRopeBase = 10_000

/** All of a Llama but its feed-forward part, which Mixtral's differs in. */
export const llamaLike = (
  name: string,
  { tied, ropeBase = llamaRopeBase, ...sizes }: LlamaConfig,
  feedForward: Parameters<typeof decoderGraph>[0]["feedForward"]
): LayerGraph => {
  const modules = { embedding: "model.embed_tokens", blocks: "model.layers", norm: "model.norm" }
  return decoderGraph({ name, style: llamaLayer, modules, positions: { ropeBase }, tied, feedForward }, sizes)
}

/**
 * Llama's layers, one per leaf module. Rotary embedding and attention proper are the layer `self_attn`.
 * Throws RangeError for sizes that are no positive whole numbers, or do not divide.
 */
export const llama = (config: LlamaConfig): LayerGraph => {
  const { ffnWidth } = config
  checkSizes("llama", { ffnWidth }, [])
  const shapes = denseWeightShapes(config)
  return llamaLike("llama", config, ({ graph, layer, project }, x) =>
    denseFeedForward(
      (from, name) => project(from, name, shapes[name][0]),
      (gate, up) => {
        layer("mlp.act_fn")
        return graph.swiglu([gate, up])
      },
      x
    )
  )
}
