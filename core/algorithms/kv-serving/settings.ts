// What a scenario may say about how the key/value cache is kept: one schema per method, every field with its default.
// What a method keeps of a prompt is choice.ts's business.
import * as Schema from "effect/Schema"
import { Positive, withDefault } from "../../fields.ts"

const Share = Schema.Number.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1))
const OddKernel = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1001 }))
const Pooling = Schema.Literals(["avg", "max"])

/** How much of a prompt stays: a share of its tokens, or so many tokens. One of the two; default keep: 0.1. */
const size = {
  keep: Schema.optionalKey(Share),
  budget: Schema.optionalKey(Positive)
}

/** Every token stays. */
export const FullCache = Schema.Struct({ name: Schema.Literal("full") })

/** The first `sinks` tokens and the newest (Xiao et al., arXiv:2309.17453). */
export const StreamingLlm = Schema.Struct({
  name: Schema.Literal("streaming-llm"),
  ...size,
  sinks: withDefault(Positive, 4)
})

/** Heavy hitters: attention accumulated over the whole prompt, and the last `window` tokens (arXiv:2306.14048). */
export const H2o = Schema.Struct({ name: Schema.Literal("h2o"), ...size, window: withDefault(Positive, 32) })

const observed = {
  ...size,
  /** Queries that look, and tokens that always stay: the last so many. */
  window: withDefault(Positive, 32),
  /** Width of the pool over neighbouring scores. */
  kernel: withDefault(OddKernel, 5),
  pooling: withDefault(Pooling, "avg")
}

/** What the prompt's last tokens attend to (arXiv:2404.14469). */
export const SnapKv = Schema.Struct({ name: Schema.Literal("snapkv"), ...observed })

/** SnapKV with more room in low layers than in high ones (arXiv:2406.02069). */
export const PyramidKv = Schema.Struct({
  name: Schema.Literal("pyramidkv"),
  ...observed,
  /** The top layer's share of the room is 1 / beta of the mean. */
  beta: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })), 20)
})

/** Whole chunks of tokens (arXiv:2502.00299). */
export const ChunkKv = Schema.Struct({
  name: Schema.Literal("chunkkv"),
  ...size,
  /** `paper`: Algorithm 1. `kvpress`: NVIDIA's library, which pools SnapKV's scores and counts whole chunks. */
  rule: withDefault(Schema.Literals(["paper", "kvpress"]), "paper"),
  /** Tokens in a chunk; default 10 (paper), 20 (kvpress). */
  chunk: Schema.optionalKey(Positive),
  /** Default 32 (paper), 64 (kvpress). */
  window: Schema.optionalKey(Positive),
  /** Of the kvpress rule. */
  kernel: withDefault(OddKernel, 5),
  pooling: withDefault(Pooling, "avg"),
  /** Layers that share one choice: the first of so many makes it, the others use it (Algorithm 2). */
  reuse: withDefault(Positive, 1)
})

/** Whole examples of the prompt, single tokens of what was generated (arXiv:2502.01941). */
export const ShotKv = Schema.Struct({
  name: Schema.Literal("shotkv"),
  ...size,
  window: withDefault(Positive, 32),
  /** Tokens in a shot, where a request does not say where its shots begin. */
  shot: withDefault(Positive, 128),
  /** Share of the generated tokens that stays. */
  decodeKeep: withDefault(Share, 1)
})

export const CacheSettings = Schema.Union([FullCache, StreamingLlm, H2o, SnapKv, PyramidKv, ChunkKv, ShotKv])
export type CacheSettings = typeof CacheSettings.Type

/** Names as a scenario writes them, in the order reports list them. */
export const cacheMethods = [
  "full",
  "streaming-llm",
  "h2o",
  "snapkv",
  "pyramidkv",
  "chunkkv",
  "shotkv"
] as const
