// GPT-2 as Hugging Face's GPT2LMHeadModel, without dropout. The output layer shares the token embedding's weight.
import type { Dtype } from "../machine/tensor.ts"
import { GraphBuilder } from "./graph-builder.ts"
import type { LayerGraph, Value } from "./layer-graph.ts"
import { checkSizes, paddedVocabulary } from "./sizes.ts"

export interface Gpt2Config {
  readonly layers: number
  readonly width: number
  readonly heads: number
  readonly vocabulary: number
  /** Pads embedding rows and logits to a multiple of it; values stay the same. Default 1: no padding. */
  readonly vocabularyMultiple?: number
  /** Tokens per sequence, and learned positions. */
  readonly context: number
  /** Sequences per rank and step. */
  readonly batch: number
  /** Default bfloat16. */
  readonly activationDtype?: Dtype
  /** Default float32. */
  readonly parameterDtype?: Dtype
}

/**
 * GPT-2's layers, one per leaf module. A block's two residual additions belong to the projections before them, its
 * attention proper to the layer `attn`. Weights are [out, in]; Hugging Face's Conv1D stores the transpose.
 * GPT-2 124M is {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024}: 124,439,808 parameters.
 * Throws RangeError for sizes that are no positive whole numbers, or heads that do not divide the width.
 */
export const gpt2 = (config: Gpt2Config): LayerGraph => {
  const { layers, width, heads, vocabulary, context, batch, vocabularyMultiple = 1 } = config
  checkSizes("gpt2", { layers, width, heads, vocabulary, context, batch, vocabularyMultiple }, [
    ["width", "heads"]
  ])
  const graph = new GraphBuilder("gpt2", {
    activations: config.activationDtype ?? "bfloat16",
    parameters: config.parameterDtype ?? "float32"
  })
  const attention = { heads, kvHeads: heads, headWidth: width / heads }
  const norm = (x: Value, name: string, block?: string) => {
    graph.layer(name, block)
    return graph.layerNorm(x, graph.parameter("weight", [width]), graph.parameter("bias", [width]), 1e-5)
  }
  const linear = (x: Value, name: string, block: string, [inWidth, outWidth]: readonly [number, number]) => {
    graph.layer(name, block)
    return graph.linear(
      x,
      graph.parameter("weight", [outWidth, inWidth]),
      graph.parameter("bias", [outWidth])
    )
  }

  const tokens = graph.input("tokens", [batch, context])
  const targets = graph.input("targets", [batch, context])
  graph.layer("transformer.wte")
  const embedding = graph.parameter(
    "weight",
    [paddedVocabulary(vocabulary, vocabularyMultiple), width],
    vocabulary
  )
  let x = graph.embedding(tokens, embedding)
  graph.layer("transformer.wpe")
  x = graph.positions(x, graph.parameter("weight", [context, width]))
  for (let l = 0; l < layers; l++) {
    const block = `transformer.h.${l}`
    let y = norm(x, `${block}.ln_1`, block)
    y = linear(y, `${block}.attn.c_attn`, block, [width, 3 * width])
    graph.layer(`${block}.attn`, block)
    y = graph.attention([y], attention)
    y = linear(y, `${block}.attn.c_proj`, block, [width, width])
    x = graph.residual(x, y)
    y = norm(x, `${block}.ln_2`, block)
    y = linear(y, `${block}.mlp.c_fc`, block, [width, 4 * width])
    graph.layer(`${block}.mlp.act`, block)
    y = graph.gelu(y)
    y = linear(y, `${block}.mlp.c_proj`, block, [4 * width, width])
    x = graph.residual(x, y)
  }
  x = norm(x, "transformer.ln_f")
  graph.layer("lm_head")
  return graph.finish(graph.linear(x, embedding), targets, vocabulary)
}
