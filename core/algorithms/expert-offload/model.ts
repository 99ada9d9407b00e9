// A mixture-of-experts decoder as generation sees it: sizes, and the tensors that hold its weights. Every layer is a MoE
// layer. Knows nothing of where experts lie or when they come.
import { sizeBytesOf, type Drawn, type Dtype, type TensorSpec } from "../../machine/tensor.ts"
import { attentionWeightShapes, llamaLayer, type DecoderSizes } from "../../models/decoder-layer.ts"
import { constant, normal } from "../../models/initial-values.ts"
import { splitSeed } from "../../random.ts"
import type { ExpertShape } from "./demand.ts"

/** A decoder whose experts do not all fit on the device: its sizes. */
export interface MoeModel extends ExpertShape, DecoderSizes {
  /** Of one expert. */
  readonly ffnWidth: number
  /** Experts of each token. */
  readonly topK: number
  /** SwiGLU experts of three matrices (Mixtral), or ReLU experts of two (Switch). */
  readonly gated: boolean
  /** The chosen experts' weights add up to 1 (Mixtral), or are the router's probabilities (Switch). */
  readonly normalize: boolean
  readonly vocabulary: number
  /** Of weights, activations and cache. */
  readonly dtype: Dtype
  /** Of the experts' weights, where they are kept narrower and widened as they are used. Default: `dtype`. */
  readonly expertDtype?: Dtype | undefined
}

/** Sizes as published; the sources are in docs/expert-offload.md. */
export const moeModels = {
  "mixtral-8x7b": {
    layers: 32,
    experts: 8,
    topK: 2,
    width: 4096,
    ffnWidth: 14336,
    heads: 32,
    kvHeads: 8,
    gated: true,
    normalize: true,
    vocabulary: 32000,
    dtype: "bfloat16"
  },
  /** The model of the recorded training step that ships: Mixtral's architecture, small. */
  "mixtral-small": {
    layers: 4,
    experts: 8,
    topK: 2,
    width: 1024,
    ffnWidth: 3584,
    heads: 16,
    kvHeads: 4,
    gated: true,
    normalize: true,
    vocabulary: 50257,
    dtype: "bfloat16"
  },
  "mixtral-8x22b": {
    layers: 56,
    experts: 8,
    topK: 2,
    width: 6144,
    ffnWidth: 16384,
    heads: 48,
    kvHeads: 8,
    gated: true,
    normalize: true,
    vocabulary: 32000,
    dtype: "bfloat16"
  },
  "qwen3-30b-a3b": {
    layers: 48,
    experts: 128,
    topK: 8,
    width: 2048,
    ffnWidth: 768,
    heads: 32,
    kvHeads: 4,
    headWidth: 128,
    gated: true,
    normalize: true,
    vocabulary: 151936,
    dtype: "bfloat16"
  },
  "qwen3-235b-a22b": {
    layers: 94,
    experts: 128,
    topK: 8,
    width: 4096,
    ffnWidth: 1536,
    heads: 64,
    kvHeads: 4,
    headWidth: 128,
    gated: true,
    normalize: true,
    vocabulary: 151936,
    dtype: "bfloat16"
  },
  "gpt-oss-20b": gptOss(24, 32),
  "gpt-oss-120b": gptOss(36, 128),
  "deepseek-v2-lite": {
    layers: 26,
    experts: 64,
    topK: 6,
    width: 2048,
    ffnWidth: 1408,
    heads: 16,
    kvHeads: 16,
    headWidth: 128,
    gated: true,
    normalize: false,
    vocabulary: 102400,
    dtype: "bfloat16"
  },
  "deepseek-v2": {
    layers: 59,
    experts: 160,
    topK: 6,
    width: 5120,
    ffnWidth: 1536,
    heads: 128,
    kvHeads: 128,
    headWidth: 128,
    gated: true,
    normalize: false,
    vocabulary: 102400,
    dtype: "bfloat16"
  },
  "deepseek-v3": {
    layers: 58,
    experts: 256,
    topK: 8,
    width: 7168,
    ffnWidth: 2048,
    heads: 128,
    kvHeads: 128,
    headWidth: 128,
    gated: true,
    normalize: true,
    vocabulary: 129280,
    dtype: "bfloat16",
    expertDtype: "float8"
  },
  "llama-4-scout": {
    layers: 48,
    experts: 16,
    topK: 1,
    width: 5120,
    ffnWidth: 8192,
    heads: 40,
    kvHeads: 8,
    headWidth: 128,
    gated: true,
    normalize: false,
    vocabulary: 202048,
    dtype: "bfloat16"
  },
  "llama-4-maverick": {
    layers: 24,
    experts: 128,
    topK: 1,
    width: 5120,
    ffnWidth: 8192,
    heads: 40,
    kvHeads: 8,
    headWidth: 128,
    gated: true,
    normalize: false,
    vocabulary: 202048,
    dtype: "bfloat16"
  },
  "qwen1.5-moe": {
    layers: 24,
    experts: 60,
    topK: 4,
    width: 2048,
    ffnWidth: 1408,
    heads: 16,
    kvHeads: 16,
    gated: true,
    normalize: false,
    vocabulary: 151936,
    dtype: "bfloat16"
  },
  "deepseek-moe": {
    layers: 27,
    experts: 64,
    topK: 6,
    width: 2048,
    ffnWidth: 1408,
    heads: 16,
    kvHeads: 16,
    gated: true,
    normalize: false,
    vocabulary: 102400,
    dtype: "bfloat16"
  },
  "switch-base-32": switchBase(32),
  "switch-base-64": switchBase(64),
  "switch-base-128": switchBase(128)
} as const satisfies Readonly<Record<string, MoeModel>>

type MoeModelName = keyof typeof moeModels

/** What a published model has that its sizes here leave out, and what that makes of its active parameters, in billions. */
export const leftOutOf: Readonly<Partial<Record<MoeModelName, string>>> = {
  "deepseek-v2-lite":
    "two shared experts a layer and a dense layer are left out, latent attention is counted as full heads: 2.2 billion active parameters for 2.4",
  "deepseek-v2":
    "two shared experts a layer and a dense layer are left out, latent attention is counted as full heads: 29 billion active parameters for 21",
  "deepseek-v3":
    "a shared expert a layer and three dense layers are left out, latent attention is counted as full heads: 50 billion active parameters for 37",
  "llama-4-scout": "a shared expert a layer is left out: 11 billion active parameters for 17",
  "llama-4-maverick":
    "24 dense layers and a shared expert a layer are left out: 7 billion active parameters for 17",
  "qwen1.5-moe": "four shared experts a layer are left out",
  "deepseek-moe": "two shared experts a layer and a dense layer are left out"
}

/** Of models some of whose layers here attend to so many tokens at most, and are taken to attend to all. */
export const windowOf: Readonly<
  Partial<Record<MoeModelName, { readonly tokens: number; readonly layers: number }>>
> = {
  "gpt-oss-20b": { tokens: 128, layers: 12 },
  "gpt-oss-120b": { tokens: 128, layers: 18 },
  "llama-4-scout": { tokens: 8192, layers: 36 },
  // Every fourth of all 48 layers attends to everything, and has experts, as every second has.
  "llama-4-maverick": { tokens: 8192, layers: 12 }
}

export const moeModelNames = Object.keys(moeModels) as ReadonlyArray<MoeModelName>

/** Experts in MXFP4, as published. */
function gptOss(layers: number, experts: number) {
  return {
    layers,
    experts,
    topK: 4,
    width: 2880,
    ffnWidth: 2880,
    heads: 64,
    kvHeads: 8,
    headWidth: 64,
    gated: true,
    normalize: true,
    vocabulary: 201088,
    dtype: "bfloat16",
    expertDtype: "mxfp4"
  } as const
}

/** Its 12 MoE layers as one stack: encoder and decoder are not told apart. */
function switchBase(experts: number) {
  return {
    layers: 12,
    experts,
    topK: 1,
    width: 768,
    ffnWidth: 3072,
    heads: 12,
    kvHeads: 12,
    gated: false,
    normalize: false,
    vocabulary: 32128,
    dtype: "bfloat16"
  } as const
}

/** An expert is one tensor, so that one copy loads it: up projection (and gate), then down projection. */
const expertExtents = ({ width, ffnWidth, gated }: MoeModel): ReadonlyArray<number> => [
  (gated ? 3 : 2) * ffnWidth,
  width
]

export const expertSpec = (model: MoeModel, name: string, place: "device" | "host"): TensorSpec => ({
  name,
  shape: expertExtents(model),
  dtype: model.expertDtype ?? model.dtype,
  place
})

export const expertName = (layer: number, expert: number): string => `layers.${layer}.experts.${expert}`

export const expertBytes = (model: MoeModel): number => {
  const [rows, width] = expertExtents(model)
  return sizeBytesOf(rows! * width!, model.expertDtype ?? model.dtype)
}

/** Shapes of the weights of one layer that always lie on the device. */
const residentWeightShapes = (model: MoeModel) => ({
  ...attentionWeightShapes(llamaLayer, model),
  router: [model.experts, model.width]
})

export type ResidentWeight = keyof ReturnType<typeof residentWeightShapes>

/** Weights that always lie on the device, of one layer. */
export const layerWeightSpecs = (
  model: MoeModel,
  layer: number
): Readonly<Record<ResidentWeight, TensorSpec>> =>
  Object.fromEntries(
    Object.entries<ReadonlyArray<number>>(residentWeightShapes(model)).map(
      ([name, shape]): readonly [string, TensorSpec] => [
        name,
        { name: `layers.${layer}.${name}`, shape, dtype: model.dtype }
      ]
    )
  ) as Record<ResidentWeight, TensorSpec>

/** Weights outside the layers. */
export const outerWeightSpecs = ({ width, vocabulary, dtype }: MoeModel) => ({
  embedding: { name: "embed_tokens", shape: [vocabulary, width], dtype },
  norm: { name: "norm", shape: [width], dtype },
  output: { name: "lm_head", shape: [vocabulary, width], dtype }
})

const deviation = 0.02

/** What a weight holds before any training: norms 1, matrices normal with deviation 0.02, each from its own name. */
export const initialWeight = ({ name, shape }: TensorSpec, seed: number): ReadonlyArray<Drawn> => [
  shape.length < 2 ? constant(1) : normal(splitSeed(seed, name), deviation)
]
