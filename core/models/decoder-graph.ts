// A decoder's layer graph for training, whatever its architecture: one layer per leaf module, named as Hugging Face names it.
// Residual additions belong to the projections before them; weights are [out, in].
import type { Dtype } from "../machine/tensor.ts"
import {
  attentionShape,
  attentionWeightShapes,
  decoderLayer,
  headWidthOf,
  normEpsilon,
  type DecoderSizes,
  type LayerStyle
} from "./decoder-layer.ts"
import { GraphBuilder } from "./graph-builder.ts"
import type { LayerGraph, Value } from "./layer-graph.ts"
import { checkSizes, paddedVocabulary } from "./sizes.ts"

/** Sizes that every model to train has. */
export interface TrainedSizes {
  readonly layers: number
  readonly width: number
  readonly heads: number
  readonly vocabulary: number
  /** Pads embedding rows and logits to a multiple of it; values stay the same. Default 1: no padding. */
  readonly vocabularyMultiple?: number
  /** Tokens per sequence; learned positions are as many. */
  readonly context: number
  /** Sequences per rank and step. */
  readonly batch: number
  /** Default bfloat16. */
  readonly activationDtype?: Dtype
  /** Default float32. */
  readonly parameterDtype?: Dtype
}

/** What a feed-forward part is built with. */
interface Block {
  readonly graph: GraphBuilder
  /** What follows belongs to this layer of the block. */
  layer(name: string): void
  /** A layer that is one linear map. */
  project(x: Value, name: string, outWidth: number): Value
}

interface Architecture {
  readonly name: string
  readonly style: LayerStyle
  /** Of the modules outside of blocks; block l is `${blocks}.${l}`. */
  readonly modules: { readonly embedding: string; readonly blocks: string; readonly norm: string }
  /** Learned ones are a layer of that name; turned ones have the base of their angles. */
  readonly positions: { readonly learned: string } | { readonly ropeBase: number }
  /** The output layer shares the embedding's weight. */
  readonly tied: boolean
  readonly feedForward: (block: Block, x: Value) => Value
}

/** Throws RangeError for sizes that are no positive whole numbers, or do not divide. */
export const decoderGraph = (
  { name, style, modules, positions, tied, feedForward }: Architecture,
  sizes: TrainedSizes & DecoderSizes
): LayerGraph => {
  const { layers, width, heads, kvHeads, vocabulary, context, batch, vocabularyMultiple = 1 } = sizes
  checkSizes(name, { layers, width, heads, kvHeads, vocabulary, context, batch, vocabularyMultiple }, [
    ...(sizes.headWidth === undefined ? ([["width", "heads"]] as const) : []),
    ["heads", "kvHeads"]
  ])
  checkSizes(name, { headWidth: headWidthOf(sizes) }, [])
  const graph = new GraphBuilder(name, {
    activations: sizes.activationDtype ?? "bfloat16",
    parameters: sizes.parameterDtype ?? "float32"
  })
  const shape = attentionShape(sizes)
  const shapes = attentionWeightShapes(style, sizes)
  const table = [paddedVocabulary(vocabulary, vocabularyMultiple), width]
  const norm = (x: Value, layer: string, block?: string): Value => {
    graph.layer(layer, block)
    const weight = graph.parameter("weight", [width])
    return style.norm === "rms"
      ? graph.rmsNorm(x, weight, normEpsilon)
      : graph.layerNorm(x, weight, graph.parameter("bias", [width]), normEpsilon)
  }

  const tokens = graph.input("tokens", [batch, context])
  const targets = graph.input("targets", [batch, context])
  graph.layer(modules.embedding)
  const embedding = graph.parameter("weight", table, vocabulary)
  let x = graph.embedding(tokens, embedding)
  if ("learned" in positions) {
    graph.layer(positions.learned)
    x = graph.positions(x, graph.parameter("weight", [context, width]))
  }
  for (let l = 0; l < layers; l++) {
    const block = `${modules.blocks}.${l}`
    const layer = (own: string): void => graph.layer(`${block}.${own}`, block)
    const project = (from: Value, own: string, outWidth: number): Value => {
      layer(own)
      const weight = graph.parameter("weight", [outWidth, from.shape.at(-1)!])
      return graph.linear(from, weight, style.bias ? graph.parameter("bias", [outWidth]) : undefined)
    }
    x = decoderLayer<Value, LayerStyle>(
      style,
      {
        norm: (from, own) => norm(from, `${block}.${own}`, block),
        project: (from, own) => project(from, own, shapes[own]![0]),
        attention: (qkv) => {
          layer(style.attention)
          if ("learned" in positions) return graph.attention(qkv, shape)
          const [q, k, v] = qkv
          if (k === undefined || v === undefined)
            throw new RangeError(`${name}: packed keys cannot be turned`)
          const turn = (one: Value, own: string) => graph.rope(one, shape.headWidth, positions.ropeBase, own)
          return graph.attention([turn(q!, "q"), turn(k, "k"), v], shape)
        },
        residual: (from, change) => graph.residual(from, change),
        feedForward: (from) => feedForward({ graph, layer, project }, from)
      },
      x
    )
  }
  x = norm(x, modules.norm)
  graph.layer("lm_head")
  const output = tied ? embedding : graph.parameter("weight", table, vocabulary)
  return graph.finish(graph.linear(x, output), targets, vocabulary)
}
