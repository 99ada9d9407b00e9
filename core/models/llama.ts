// Llama-style models as Hugging Face's LlamaForCausalLM: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases.
import type { Dtype } from "../machine/tensor.ts"
import {
  attentionShape,
  attentionWeightShapes,
  decoderLayer,
  denseFeedForward,
  denseWeightShapes,
  headWidthOf,
  normEpsilon,
  type ProjectionName
} from "./decoder-layer.ts"
import { GraphBuilder } from "./graph-builder.ts"
import type { LayerGraph, Value } from "./layer-graph.ts"
import { checkSizes, paddedVocabulary } from "./sizes.ts"

export interface LlamaConfig {
  readonly layers: number
  readonly width: number
  readonly heads: number
  readonly kvHeads: number
  /** Default: width / heads. */
  readonly headWidth?: number
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

/** A layer's feed-forward part: emits it, and returns its output. `project` is a layer that is one of its linear maps. */
type FeedForward = (
  graph: GraphBuilder,
  x: Value,
  block: string,
  project: (x: Value, name: ProjectionName) => Value
) => Value

/** Everything of a decoder but its feed-forward part, which Llama and Mixtral differ in. */
export const decoder = (
  name: string,
  config: LlamaConfig & { readonly ropeBase: number },
  feedForward: FeedForward
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
    ...(config.headWidth === undefined ? ([["width", "heads"]] as const) : []),
    ["heads", "kvHeads"]
  ])
  checkSizes(name, { headWidth: headWidthOf(config) }, [])
  const graph = new GraphBuilder(name, {
    activations: config.activationDtype ?? "bfloat16",
    parameters: config.parameterDtype ?? "float32"
  })
  const shape = attentionShape(config)
  const table = [paddedVocabulary(vocabulary, vocabularyMultiple), width]
  const shapes = { ...attentionWeightShapes(config), ...denseWeightShapes(config) }
  const norm = (x: Value, layer: string, block?: string): Value => {
    graph.layer(layer, block)
    return graph.rmsNorm(x, graph.parameter("weight", [width]), normEpsilon)
  }

  const tokens = graph.input("tokens", [batch, context])
  const targets = graph.input("targets", [batch, context])
  graph.layer("model.embed_tokens")
  const embedding = graph.parameter("weight", table, vocabulary)
  let x = graph.embedding(tokens, embedding)
  for (let l = 0; l < layers; l++) {
    const block = `model.layers.${l}`
    const project = (from: Value, own: ProjectionName): Value =>
      projection(graph, from, `${block}.${own}`, block, shapes[own][0])
    x = decoderLayer<Value>(
      {
        norm: (from, own) => norm(from, `${block}.${own}`, block),
        project,
        attention: (q, k, v) => {
          graph.layer(`${block}.self_attn`, block)
          const { headWidth } = shape
          const turned = [graph.rope(q, headWidth, ropeBase, "q"), graph.rope(k, headWidth, ropeBase, "k")]
          return graph.attention([...turned, v], shape)
        },
        residual: (from, change) => graph.residual(from, change),
        feedForward: (from) => feedForward(graph, from, block, project)
      },
      x
    )
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
  return decoder("llama", { ropeBase: llamaRopeBase, ...config }, (graph, x, block, project) =>
    denseFeedForward<Value>(
      { project },
      (gate, up) => {
        graph.layer(`${block}.mlp.act_fn`, block)
        return graph.swiglu([gate, up])
      },
      x
    )
  )
}
