// What a scenario of serving with a key/value cache says: the model, the requests, what is kept of their caches, and where
// the caches go.
import * as Schema from "effect/Schema"
import type { HostWork } from "../../host.ts"
import { Layers, Listed, Positive, withDefault } from "../../../core/fields.ts"
import {
  commonFields,
  DeviceSettings,
  FaultSettings,
  HostSettings,
  Jitter,
  MemorySettings,
  modelNamed,
  NetworkModel,
  Path,
  PositiveSeconds,
  Window
} from "../../sections.ts"
import { Bandwidth, Flops, Seconds } from "../../../core/units.ts"
import type { DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import { CacheSettings } from "../../../core/algorithms/kv-serving/methods.ts"

const llama31 = { vocabulary: 128_256, tied: false, ropeBase: 500_000, dtype: "bfloat16" } as const

const qwen3 = {
  headWidth: 128,
  vocabulary: 151_936,
  tied: false,
  ropeBase: 1_000_000,
  dtype: "bfloat16"
} as const

/** Published architectures by name: the config.json of each on Hugging Face. */
export const namedModels = {
  "llama-3-8b": { layers: 32, width: 4096, heads: 32, kvHeads: 8, ffnWidth: 14336, ...llama31 },
  "llama-3-70b": { layers: 80, width: 8192, heads: 64, kvHeads: 8, ffnWidth: 28672, ...llama31 },
  "llama-3.1-8b": { layers: 32, width: 4096, heads: 32, kvHeads: 8, ffnWidth: 14336, ...llama31 },
  "llama-3.1-70b": { layers: 80, width: 8192, heads: 64, kvHeads: 8, ffnWidth: 28672, ...llama31 },
  "llama-3.1-405b": { layers: 126, width: 16384, heads: 128, kvHeads: 8, ffnWidth: 53248, ...llama31 },
  "llama-3.2-1b": { layers: 16, width: 2048, heads: 32, kvHeads: 8, ffnWidth: 8192, ...llama31, tied: true },
  "llama-3.2-3b": { layers: 28, width: 3072, heads: 24, kvHeads: 8, ffnWidth: 8192, ...llama31, tied: true },
  "llama-3.3-70b": { layers: 80, width: 8192, heads: 64, kvHeads: 8, ffnWidth: 28672, ...llama31 },
  "qwen3-0.6b": { layers: 28, width: 1024, heads: 16, kvHeads: 8, ffnWidth: 3072, ...qwen3, tied: true },
  "qwen3-1.7b": { layers: 28, width: 2048, heads: 16, kvHeads: 8, ffnWidth: 6144, ...qwen3, tied: true },
  "qwen3-4b": { layers: 36, width: 2560, heads: 32, kvHeads: 8, ffnWidth: 9728, ...qwen3, tied: true },
  "qwen3-8b": { layers: 36, width: 4096, heads: 32, kvHeads: 8, ffnWidth: 12288, ...qwen3 },
  "qwen3-14b": { layers: 40, width: 5120, heads: 40, kvHeads: 8, ffnWidth: 17408, ...qwen3 },
  "qwen3-32b": { layers: 64, width: 5120, heads: 64, kvHeads: 8, ffnWidth: 25600, ...qwen3 },
  "llama-2-7b": {
    layers: 32,
    width: 4096,
    heads: 32,
    kvHeads: 32,
    ffnWidth: 11008,
    vocabulary: 32_000,
    tied: false,
    ropeBase: 10_000,
    dtype: "bfloat16"
  }
} as const satisfies Readonly<Record<string, DecoderModel>>

/** How many tokens each was made for: `max_position_embeddings` of the same files. */
export const positionsOf: Readonly<Record<keyof typeof namedModels, number>> = {
  "llama-2-7b": 4096,
  "llama-3-8b": 8192,
  "llama-3-70b": 8192,
  "llama-3.1-8b": 131_072,
  "llama-3.1-70b": 131_072,
  "llama-3.1-405b": 131_072,
  "llama-3.2-1b": 131_072,
  "llama-3.2-3b": 131_072,
  "llama-3.3-70b": 131_072,
  "qwen3-0.6b": 40_960,
  "qwen3-1.7b": 40_960,
  "qwen3-4b": 40_960,
  "qwen3-8b": 40_960,
  "qwen3-14b": 40_960,
  "qwen3-32b": 40_960
}

/** A Llama-style decoder by its sizes. */
const DescribedModel = Schema.Struct({
  layers: Layers,
  width: Positive,
  heads: Positive,
  /** Default: as many as heads. */
  kvHeads: Schema.optionalKey(Positive),
  /** Default: width / heads. */
  headWidth: Schema.optionalKey(Positive),
  ffnWidth: Positive,
  vocabulary: withDefault(Positive, 128_256),
  tied: withDefault(Schema.Boolean, false),
  /** Of weights, activations and cache. */
  dtype: withDefault(Schema.Literals(["bfloat16", "float16", "float32"]), "bfloat16")
})

const ServingModel = Schema.Union([
  modelNamed(Object.keys(namedModels) as ReadonlyArray<keyof typeof namedModels>),
  DescribedModel
])
type ServingModel = typeof ServingModel.Type

const Lengths = Schema.Union([Positive, Schema.Struct({ from: Positive, to: Positive })])

/** A seeded process. */
const DrawnRequests = Schema.Struct({
  count: withDefault(Listed, 64),
  /** Tokens of a prompt: a number, or a range to draw from evenly. */
  prompt: Lengths,
  output: Lengths,
  /** Mean requests per second; without one all come at once. */
  perSecond: Schema.optionalKey(Schema.Number.check(Schema.isBetween({ minimum: 1e-6, maximum: 1e6 }))),
  arrivals: withDefault(Schema.Literals(["poisson", "even"]), "poisson")
})

/** A recorded trace, or several on one clock: docs/formats.md says whose. */
const TracedRequests = Schema.Struct({
  /** A file, a folder of them, or a list. */
  trace: Schema.Union([Path, Schema.NonEmptyArray(Path)]),
  /** The first so many requests; default all. */
  limit: Schema.optionalKey(Listed),
  /** Twice as fast: 2. */
  speed: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 1e-6, maximum: 1e6 })), 1)
})

const RequestSettings = Schema.Union([TracedRequests, DrawnRequests])
type RequestSettings = typeof RequestSettings.Type

/** Where a cache goes between prefill and decoding. */
const TransferSettings = Schema.Struct({
  /** `none`: one device does both. `host`: it waits in host memory. `node`: another device decodes, over a link. */
  to: withDefault(Schema.Literals(["none", "host", "node"]), "none"),
  /** Of the link between nodes (default unlimited), or of the copies to and from host memory (default as measured). */
  bandwidth: Schema.optionalKey(Bandwidth.check(Schema.isGreaterThan(0))),
  /** Of the link between nodes, one way. */
  latency: withDefault(Seconds, 0),
  /** Of the link between nodes: most bytes that may be on the way. */
  window: Schema.optionalKey(Window)
})

/** Kernels from a table of measured ones. */
const MeasuredOpCosts = Schema.Struct({
  /** Default: those of an NVIDIA H200 that ship. */
  ops: Schema.optionalKey(Path),
  /** Least time of a kernel that the table lacks; default: the shortest copy in it. */
  launch: Schema.optionalKey(Seconds)
})

/** A line through published latencies: so much a step, so much more for each cached token of the batch. */
const FittedStepCosts = Schema.Struct({
  step: PositiveSeconds,
  token: Seconds,
  /** Rate at which prefill gets through its arithmetic. */
  prefill: Flops.check(Schema.isGreaterThan(0))
})

/** A scenario of serving with compressed caches; docs/kv-serving.md has its fields. */
export const KvServingScenario = Schema.Struct({
  task: Schema.Literal("kv-serving"),
  ...commonFields,
  model: withDefault(ServingModel, "llama-3.1-8b"),
  /** Of keys and values, kept narrower than they are computed with. Default: the model's. */
  cacheDtype: Schema.optionalKey(Schema.Literals(["bfloat16", "float8", "int8", "float4", "mxfp4"])),
  /** `algorithm: snapkv` is short for `algorithm: {name: snapkv}`. */
  algorithm: CacheSettings,
  requests: RequestSettings,
  /** Most sequences that decode together. */
  maxBatch: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4096 })), 64),
  transfer: withDefault(TransferSettings, {}),
  /** What a request must keep to count for goodput: its first token within `ttft`, the others `tpot` apart on average. */
  objective: withDefault(
    Schema.Struct({ ttft: withDefault(PositiveSeconds, "2s"), tpot: withDefault(PositiveSeconds, "100ms") }),
    {}
  ),
  network: NetworkModel,
  /** What launches and reads cost the host. Default: nothing. */
  host: Schema.optionalKey(HostSettings),
  /** Default: NVIDIA H200. */
  device: Schema.optionalKey(DeviceSettings),
  /** Default: kernels measured on an NVIDIA H200, where that is the device; otherwise the device's peak rates. */
  // A line is told by its fields; of a table none is needed, so that it would stand for everything.
  costs: Schema.optionalKey(Schema.Union([FittedStepCosts, MeasuredOpCosts])),
  /** Weights, activations and caches count. */
  memory: Schema.optionalKey(MemorySettings),
  faults: withDefault(Schema.Array(FaultSettings), []),
  jitter: Jitter
})
export type KvServingScenario = typeof KvServingScenario.Type

/** What the host has not to do: without a second node nothing is collective. */
export const hostNever = ({ transfer }: KvServingScenario): ReadonlyArray<HostWork> =>
  transfer.to === "node" ? ["copy"] : ["collective", "hook", "copy"]
