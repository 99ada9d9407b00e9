// A decoder layer, said once: which weights it has, and how what goes in becomes what comes out. Training, prefill, decoding and
// experts in host memory differ in what stands for a value, how attention sees earlier tokens and what the feed-forward part
// is; they say that, and nothing else, in `DecoderParts`.

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

/** Weights of a layer without its feed-forward part, in the order of the forward pass, named as Hugging Face names them. */
export const attentionWeightShapes = (sizes: DecoderSizes) => {
  const { width } = sizes
  const [q, kv] = [queryWidthOf(sizes), kvWidthOf(sizes)]
  return {
    input_layernorm: [width],
    "self_attn.q_proj": [q, width],
    "self_attn.k_proj": [kv, width],
    "self_attn.v_proj": [kv, width],
    "self_attn.o_proj": [width, q],
    post_attention_layernorm: [width]
  } as const
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

export type NormName = "input_layernorm" | "post_attention_layernorm"
export type ProjectionName =
  | Exclude<keyof ReturnType<typeof attentionWeightShapes>, NormName>
  | keyof ReturnType<typeof denseWeightShapes>

/** What a layer is made of, for one kind of value. */
interface DecoderParts<V> {
  /** RMSNorm with that weight. */
  norm(x: V, name: NormName): V
  /** A linear map without bias. */
  project(x: V, name: ProjectionName): V
  /** Causal attention, rotary positions included. */
  attention(q: V, k: V, v: V): V
  residual(x: V, y: V): V
  feedForward(x: V): V
}

/** A layer's output. */
export const decoderLayer = <V>(parts: DecoderParts<V>, x: V): V => {
  const y = parts.norm(x, "input_layernorm")
  const q = parts.project(y, "self_attn.q_proj")
  const k = parts.project(y, "self_attn.k_proj")
  const v = parts.project(y, "self_attn.v_proj")
  const mixed = parts.attention(q, k, v)
  const middle = parts.residual(x, parts.project(mixed, "self_attn.o_proj"))
  return parts.residual(middle, parts.feedForward(parts.norm(middle, "post_attention_layernorm")))
}

/** The dense feed-forward part of Llama. */
export const denseFeedForward = <V>(
  { project }: Pick<DecoderParts<V>, "project">,
  swiglu: (gate: V, up: V) => V,
  x: V
): V => {
  const gate = project(x, "mlp.gate_proj")
  const up = project(x, "mlp.up_proj")
  return project(swiglu(gate, up), "mlp.down_proj")
}
