// Llama-style models as Hugging Face's LlamaForCausalLM: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases.
import type { Dtype } from "../machine/tensor.ts"
import { GraphBuilder } from "./graph-builder.ts"
import type { LayerGraph, Value } from "./layer-graph.ts"
import { checkSizes, paddedVocabulary } from "./sizes.ts"

export interface LlamaConfig {
  readonly layers: number
  readonly width: number
  readonly heads: number
  readonly kvHeads: number
  readonly ffnWidth: number
  readonly vocabulary: number
  /** Pads embedding rows and logits to a multiple of it; values stay the same. Default 1: no padding. */
  readonly vocabularyMultiple?: number
  /** Tokens per sequence. */
  readonly context: number
  /** Sequences per rank and step. */
  readonly batch: number
  /** The output layer shares the embedding's weight. */
  readonly tied: boolean
  /** Default `llamaRopeBase`. */
  readonly ropeBase?: number
  /** Default bfloat16. */
  readonly activationDtype?: Dtype
  /** Default float32. */
  readonly parameterDtype?: Dtype
}

/** Base of the rotary angles where a model says none. */
export const llamaRopeBase = 10_000

/** Everything of a decoder but its feed-forward part, which Llama and Mixtral differ in. */
export const decoder = (
  name: string,
  config: Omit<LlamaConfig, "ffnWidth"> & { readonly ropeBase: number },
  feedForward: (graph: GraphBuilder, x: Value, block: string) => Value
): LayerGraph => {
  const {
    layers,
    width,
    heads,
    kvHeads,
    vocabulary,
    context,
    batch,
    tied,
    ropeBase,
    vocabularyMultiple = 1
  } = config
  checkSizes(name, { layers, width, heads, kvHeads, vocabulary, context, batch, vocabularyMultiple }, [
    ["width", "heads"],
    ["heads", "kvHeads"]
  ])
  const graph = new GraphBuilder(name, {
    activations: config.activationDtype ?? "bfloat16",
    parameters: config.parameterDtype ?? "float32"
  })
  const headWidth = width / heads
  const table = [paddedVocabulary(vocabulary, vocabularyMultiple), width]
  const kvWidth = kvHeads * headWidth
  const norm = (x: Value, name: string, block?: string): Value => {
    graph.layer(name, block)
    return graph.rmsNorm(x, graph.parameter("weight", [width]), 1e-5)
  }

  const tokens = graph.input("tokens", [batch, context])
  const targets = graph.input("targets", [batch, context])
  graph.layer("model.embed_tokens")
  const embedding = graph.parameter("weight", table, vocabulary)
  let x = graph.embedding(tokens, embedding)
  for (let l = 0; l < layers; l++) {
    const block = `model.layers.${l}`
    const y = norm(x, `${block}.input_layernorm`, block)
    const q = projection(graph, y, `${block}.self_attn.q_proj`, block, width)
    const k = projection(graph, y, `${block}.self_attn.k_proj`, block, kvWidth)
    const v = projection(graph, y, `${block}.self_attn.v_proj`, block, kvWidth)
    graph.layer(`${block}.self_attn`, block)
    const turned = [graph.rope(q, headWidth, ropeBase, "q"), graph.rope(k, headWidth, ropeBase, "k")]
    const mixed = graph.attention([...turned, v], { heads, kvHeads, headWidth })
    x = graph.residual(x, projection(graph, mixed, `${block}.self_attn.o_proj`, block, width))
    const z = norm(x, `${block}.post_attention_layernorm`, block)
    x = graph.residual(x, feedForward(graph, z, block))
  }
  x = norm(x, "model.norm")
  graph.layer("lm_head")
  const output = tied ? embedding : graph.parameter("weight", table, vocabulary)
  return graph.finish(graph.linear(x, output), targets, vocabulary)
}

/** A layer that is one linear map without bias. */
export const projection = (
  graph: GraphBuilder,
  x: Value,
  name: string,
  block: string,
  outWidth: number
): Value => {
  graph.layer(name, block)
  return graph.linear(x, graph.parameter("weight", [outWidth, x.shape.at(-1)!]))
}

/**
 * Llama's layers, one per leaf module. Rotary embedding and attention proper are the layer `self_attn`; residual additions
 * belong to the projections before them.
 * Throws RangeError for sizes that are no positive whole numbers, or do not divide.
 */
export const llama = (config: LlamaConfig): LayerGraph => {
  const { ffnWidth } = config
  checkSizes("llama", { ffnWidth }, [])
  return decoder("llama", { ropeBase: llamaRopeBase, ...config }, (graph, x, block) => {
    const gate = projection(graph, x, `${block}.mlp.gate_proj`, block, ffnWidth)
    const up = projection(graph, x, `${block}.mlp.up_proj`, block, ffnWidth)
    graph.layer(`${block}.mlp.act_fn`, block)
    const y = graph.swiglu([gate, up])
    return projection(graph, y, `${block}.mlp.down_proj`, block, config.width)
  })
}
