// A small Llama-style decoder worked out afresh for every token, over all tokens so far and without any cache: what
// generation with a cache is held to. Plain loops of its own; shares nothing with the kernels but the weights.
import { weightSpecs, type DecoderModel } from "../../core/algorithms/kv-serving/model.ts"
import { headWidthOf } from "../../core/models/decoder-layer.ts"
import { Random } from "../../core/random.ts"

export type Weights = ReadonlyMap<string, Float32Array>

export const tinyModel = (changes: Partial<DecoderModel> = {}): DecoderModel => ({
  layers: 2,
  width: 16,
  heads: 4,
  kvHeads: 2,
  ffnWidth: 24,
  vocabulary: 29,
  tied: false,
  ropeBase: 10_000,
  dtype: "float32",
  ...changes
})

/** Weights large enough that tokens differ. */
export const weightsOf = (model: DecoderModel, seed: number): Weights => {
  const random = new Random(seed).split("weights")
  return new Map(
    weightSpecs(model).map(({ name, shape }) => {
      const elements = shape.reduce((product, extent) => product * extent, 1)
      const size = shape.length === 1 ? 1 : 3 / Math.sqrt(shape[1]!)
      return [name, Float32Array.from({ length: elements }, () => size * (2 * random.uniform() - 1))]
    })
  )
}

type Rows = Array<Float64Array>

const linear = (rows: Rows, weight: Float32Array, outWidth: number): Rows =>
  rows.map((row) =>
    Float64Array.from({ length: outWidth }, (_, o) => {
      let sum = 0
      for (let i = 0; i < row.length; i++) sum += row[i]! * weight[o * row.length + i]!
      return Math.fround(sum)
    })
  )

const norm = (rows: Rows, weight: Float32Array): Rows =>
  rows.map((row) => {
    const scale = 1 / Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length + 1e-5)
    return row.map((x, i) => Math.fround(x * scale * weight[i]!))
  })

/** Turns every head of every row to the row's position. */
const turned = (rows: Rows, headWidth: number, base: number): Rows =>
  rows.map((row, position) => {
    const out = row.slice()
    for (let at = 0; at < row.length; at += headWidth) {
      for (let i = 0; i < headWidth / 2; i++) {
        const angle = position * base ** ((-2 * i) / headWidth)
        const [x, y] = [row[at + i]!, row[at + i + headWidth / 2]!]
        out[at + i] = Math.fround(x * Math.cos(angle) - y * Math.sin(angle))
        out[at + i + headWidth / 2] = Math.fround(y * Math.cos(angle) + x * Math.sin(angle))
      }
    }
    return out
  })

/** Which tokens of the prompt a layer keeps in each key/value head, given its turned queries and keys. */
export type Keep = (layer: number, q: Rows, k: Rows) => ReadonlyArray<ReadonlySet<number>>

/** How many generated tokens stay once so many have been fed back; see ShotKV. */
type Stay = (fedBack: number) => number

/**
 * Greedy tokens after `prompt`. Queries of the prompt see every earlier token. Later ones see what `keep` left of the prompt
 * (everything, without it) and the generated tokens that are left: where one more is there than `stay` allows, the one that
 * the newest query attended to least, over all heads, is given up; never the newest itself.
 */
export const generate = (
  model: DecoderModel,
  weights: Weights,
  prompt: ReadonlyArray<number>,
  outputTokens: number,
  keep?: Keep,
  stay: Stay = (fedBack) => fedBack
): { readonly tokens: ReadonlyArray<number>; readonly margin: number } => {
  const tokens = [...prompt]
  let margin = Infinity
  const kept: Array<ReadonlyArray<ReadonlySet<number>>> = []
  // By layer: positions of generated tokens that are left, and what each generated token saw of them.
  const left = Array.from({ length: model.layers }, () => new Set<number>())
  const saw = Array.from({ length: model.layers }, () => new Map<number, ReadonlySet<number>>())
  while (tokens.length < prompt.length + outputTokens) {
    const newest = tokens.length - 1
    const fedBack = tokens.length - prompt.length
    const logits = forward(model, weights, tokens, {
      seen: (layer, q, k) => {
        if (fedBack === 0) kept[layer] = keep?.(layer, q, k) ?? []
        else {
          left[layer]!.add(newest)
          saw[layer]!.set(newest, new Set(left[layer]))
        }
        return (kvHead, position, key) => {
          if (position < prompt.length) return true
          if (key >= prompt.length) return saw[layer]!.get(position)!.has(key)
          return keep === undefined || kept[layer]![kvHead]!.has(key)
        }
      },
      attended: (layer, attention) => {
        if (left[layer]!.size <= stay(fedBack)) return
        const others = [...left[layer]!].filter((position) => position !== newest)
        const ordered = others.toSorted((a, b) => attention.get(a)! - attention.get(b)!)
        if (ordered.length > 1)
          margin = Math.min(margin, attention.get(ordered[1]!)! - attention.get(ordered[0]!)!)
        left[layer]!.delete(ordered[0]!)
      }
    })
    const ordered = [...logits].toSorted((a, b) => b - a)
    margin = Math.min(margin, ordered[0]! - ordered[1]!)
    tokens.push(logits.indexOf(ordered[0]!))
  }
  return { tokens: tokens.slice(prompt.length), margin }
}

type Sees = (kvHead: number, position: number, key: number) => boolean

interface Watch {
  /** Before a layer's attention: who sees whom. */
  seen(layer: number, q: Rows, k: Rows): Sees
  /** After it: the last query's attention to each key it saw, summed over heads. */
  attended(layer: number, attention: ReadonlyMap<number, number>): void
}

/** Logits after the last of `tokens`. */
const forward = (
  model: DecoderModel,
  weights: Weights,
  tokens: ReadonlyArray<number>,
  watch: Watch
): Float64Array => {
  const { width, heads, kvHeads, ffnWidth, vocabulary } = model
  const headWidth = headWidthOf(model)
  const weight = (name: string): Float32Array => weights.get(`${name}.weight`)!
  const embedding = weight("model.embed_tokens")
  let x: Rows = tokens.map((token) =>
    Float64Array.from(embedding.subarray(token * width, (token + 1) * width))
  )
  const add = (one: Rows, other: Rows): Rows =>
    one.map((row, r) => row.map((value, i) => Math.fround(value + other[r]![i]!)))
  for (let layer = 0; layer < model.layers; layer++) {
    const own = (name: string): Float32Array => weight(`model.layers.${layer}.${name}`)
    const y = norm(x, own("input_layernorm"))
    const q = turned(linear(y, own("self_attn.q_proj"), width), headWidth, model.ropeBase)
    const k = turned(linear(y, own("self_attn.k_proj"), kvHeads * headWidth), headWidth, model.ropeBase)
    const v = linear(y, own("self_attn.v_proj"), kvHeads * headWidth)
    const sees = watch.seen(layer, q, k)
    const attention = new Map<number, number>()
    const mixed = q.map((query, position) => {
      const out = new Float64Array(width)
      for (let h = 0; h < heads; h++) {
        const kvHead = Math.floor((h * kvHeads) / heads)
        const keys = k.flatMap((_, key) => (key <= position && sees(kvHead, position, key) ? [key] : []))
        const scores = keys.map((key) => {
          let dot = 0
          for (let i = 0; i < headWidth; i++)
            dot += query[h * headWidth + i]! * k[key]![kvHead * headWidth + i]!
          return Math.exp(dot / Math.sqrt(headWidth))
        })
        const total = scores.reduce((sum, score) => sum + score, 0)
        if (position === tokens.length - 1)
          for (const [s, key] of keys.entries())
            attention.set(key, (attention.get(key) ?? 0) + scores[s]! / total)
        for (let i = 0; i < headWidth; i++) {
          let sum = 0
          for (const [s, key] of keys.entries())
            sum += (scores[s]! / total) * v[key]![kvHead * headWidth + i]!
          out[h * headWidth + i] = Math.fround(sum)
        }
      }
      return out
    })
    watch.attended(layer, attention)
    x = add(x, linear(mixed, own("self_attn.o_proj"), width))
    const z = norm(x, own("post_attention_layernorm"))
    const gate = linear(z, own("mlp.gate_proj"), ffnWidth)
    const up = linear(z, own("mlp.up_proj"), ffnWidth)
    const active = gate.map((row, r) => row.map((g, i) => Math.fround((g / (1 + Math.exp(-g))) * up[r]![i]!)))
    x = add(x, linear(active, own("mlp.down_proj"), width))
  }
  const output = model.tied ? embedding : weight("lm_head")
  return linear(norm([x.at(-1)!], weight("model.norm")), output, vocabulary)[0]!
}
