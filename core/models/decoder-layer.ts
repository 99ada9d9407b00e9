// A decoder layer, said once: which weights it has, and how what goes in becomes what comes out. Architectures differ in the
// kinds of its parts and in names, which a `LayerStyle` says. Training, prefill, decoding, experts in host memory and attention
// that is split over a node differ in what stands for a value, how attention sees earlier tokens and what the feed-forward
// part is; they say that, and nothing else, in `LayerParts`.

/** Kinds and names (as Hugging Face has them, below the block's) of a layer's parts, in the order of the forward pass. */
export type LayerStyle = {
  /** Root mean square, or mean and variance; the latter has a bias. */
  readonly norm: "rms" | "layer"
  readonly attentionNorm: string
  /** Where attention itself, which has no weights, is counted. */
  readonly attention: string
  readonly output: string
  readonly feedForwardNorm: string
  /** Of every linear map. */
  readonly bias: boolean
} & (
  | { readonly qkv: readonly [queries: string, keys: string, values: string] }
  /** One map for all three. */
  | { readonly qkv: readonly [packed: string] }
)

export const llamaLayer = {
  norm: "rms",
  attentionNorm: "input_layernorm",
  qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  attention: "self_attn",
  output: "self_attn.o_proj",
  feedForwardNorm: "post_attention_layernorm",
  bias: false
} as const satisfies LayerStyle

export const gpt2Layer = {
  norm: "layer",
  attentionNorm: "ln_1",
  qkv: ["attn.c_attn"],
  attention: "attn",
  output: "attn.c_proj",
  feedForwardNorm: "ln_2",
  bias: true
} as const satisfies LayerStyle

type NormOf<S extends LayerStyle> = S["attentionNorm" | "feedForwardNorm"]
type MapOf<S extends LayerStyle> = S["qkv"][number] | S["output"]

/** Sizes that every part of a decoder layer depends on. */
export interface DecoderSizes {
  readonly width: number
  readonly heads: number
  /** Heads of keys and values, which several query heads share. */
  readonly kvHeads: number
  /** Default: width / heads. Many models' heads together are wider, or narrower, than the model. */
  readonly headWidth?: number | undefined
}

export const headWidthOf = ({
  width,
  heads,
  headWidth = width / heads
}: Pick<DecoderSizes, "width" | "heads" | "headWidth">): number => headWidth

/** Width of all queries of a token. */
export const queryWidthOf = (sizes: DecoderSizes): number => sizes.heads * headWidthOf(sizes)

/** Width of all keys (or values) of a token: grouped queries store key/value heads, not query heads. */
export const kvWidthOf = (sizes: DecoderSizes): number => sizes.kvHeads * headWidthOf(sizes)

/** What attention kernels are told. */
export const attentionShape = (sizes: DecoderSizes) => ({
  heads: sizes.heads,
  kvHeads: sizes.kvHeads,
  headWidth: headWidthOf(sizes)
})

export const normEpsilon = 1e-5

/** Weights of a layer without its feed-forward part, in the order of the forward pass; linear maps are [out, in]. */
export const attentionWeightShapes = <const S extends LayerStyle>(
  style: S,
  sizes: DecoderSizes
): Readonly<Record<MapOf<S>, readonly [number, number]> & Record<NormOf<S>, readonly [number]>> => {
  const { width } = sizes
  const [q, kv] = [queryWidthOf(sizes), kvWidthOf(sizes)]
  const widths = style.qkv.length === 1 ? [q + 2 * kv] : [q, kv, kv]
  return Object.fromEntries<ReadonlyArray<number>>([
    [style.attentionNorm, [width]],
    ...style.qkv.map((name, i) => [name, [widths[i]!, width]] as const),
    [style.output, [width, q]],
    [style.feedForwardNorm, [width]]
  ]) as ReturnType<typeof attentionWeightShapes<S>>
}

/** Weights of a dense feed-forward part: silu(gate) * up, then down. */
export const denseWeightShapes = ({
  width,
  ffnWidth
}: {
  readonly width: number
  readonly ffnWidth: number
}) =>
  ({
    "mlp.gate_proj": [ffnWidth, width],
    "mlp.up_proj": [ffnWidth, width],
    "mlp.down_proj": [width, ffnWidth]
  }) as const

export type NormName = NormOf<typeof llamaLayer>
export type ProjectionName = MapOf<typeof llamaLayer> | keyof ReturnType<typeof denseWeightShapes>

/** What the attention part of a layer is made of, for one kind of value. */
interface AttentionParts<V, S extends LayerStyle> {
  norm(x: V, name: NormOf<S>): V
  /** A linear map. */
  project(x: V, name: MapOf<S>): V
  /** Causal attention, rotary positions included, of queries, keys and values, or of one that holds all. */
  attention(qkv: ReadonlyArray<V>): V
  residual(x: V, y: V): V
}

interface LayerParts<V, S extends LayerStyle> extends AttentionParts<V, S> {
  feedForward(x: V): V
}

/** The first half of a layer. */
export const attentionPart = <V, S extends LayerStyle>(style: S, parts: AttentionParts<V, S>, x: V): V => {
  const y = parts.norm(x, style.attentionNorm)
  const mixed = parts.attention(style.qkv.map((name: S["qkv"][number]) => parts.project(y, name)))
  return parts.residual(x, parts.project(mixed, style.output))
}

/** A layer's output. */
export const decoderLayer = <V, S extends LayerStyle>(style: S, parts: LayerParts<V, S>, x: V): V => {
  const middle = attentionPart(style, parts, x)
  return parts.residual(middle, parts.feedForward(parts.norm(middle, style.feedForwardNorm)))
}

/** The dense feed-forward part of Llama. */
export const denseFeedForward = <V>(
  project: (x: V, name: keyof ReturnType<typeof denseWeightShapes>) => V,
  swiglu: (gate: V, up: V) => V,
  x: V
): V => {
  const gate = project(x, "mlp.gate_proj")
  const up = project(x, "mlp.up_proj")
  return project(swiglu(gate, up), "mlp.down_proj")
}
