// What a scenario of MoE training says: the layers, what their ops cost, how tokens are routed, the algorithm.
import * as Schema from "effect/Schema"
import type { HostWork } from "../../host.ts"
import { Amount, Experts, Layers, Positive, withDefault } from "../../../core/fields.ts"
import {
  commonFields,
  DeviceSettings,
  FaultSettings,
  HostSettings,
  Jitter,
  MemorySettings,
  NetworkModel,
  Path,
  Slowdown,
  WorldSettings
} from "../../sections.ts"
import { Seconds } from "../../../core/units.ts"
import { gateNames } from "../../../core/algorithms/moe-training/model.ts"
import { costScopes } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import { MoeTrainingSettings } from "../../../core/algorithms/moe-training/algorithms.ts"

/** A stack of layers of attention and experts; nothing before or after them. */
const MoeModelSettings = Schema.Struct({
  layers: Layers,
  /** M. */
  width: Positive,
  /** H, of one expert. */
  hidden: Positive,
  heads: Positive,
  /** Default: as many as heads. */
  kvHeads: Schema.optionalKey(Positive),
  /** Default: width / heads. */
  headWidth: Schema.optionalKey(Positive),
  /** L. */
  sequence: Positive,
  /** B: sequences of each node. */
  batch: withDefault(Positive, 1),
  /** E, over all nodes. Default: one on each node. */
  experts: Schema.optionalKey(Experts),
  /** k. */
  topK: withDefault(Positive, 2),
  /** f: each expert has room for k f tokens / E of every rank's; `dropless`: for all that choose it. */
  capacityFactor: withDefault(
    Schema.Union([
      Schema.Literal("dropless"),
      Schema.Number.check(Schema.isBetween({ minimum: 0.01, maximum: 100 }))
    ]),
    1.2
  ),
  ffn: withDefault(Schema.Literals(["gpt", "mixtral"]), "gpt"),
  gate: withDefault(Schema.Literals(gateNames), "softmax"),
  /** Width of X-MoE's projection. */
  gateWidth: withDefault(Positive, 16),
  dtype: withDefault(Schema.Literals(["float32", "bfloat16", "float16"]), "bfloat16")
})

/** What a collective costs, as someone else has fitted it: fixed + perUnit * size. */
const LineSettings = Schema.Struct({
  fixed: Seconds,
  /** Seconds for each unit of size. */
  perUnit: Amount,
  unit: Schema.Literals(["elements", "bytes"]),
  dtype: withDefault(Schema.Literals(["float32", "bfloat16", "float16"]), "float32"),
  scope: withDefault(Schema.Literals(costScopes), "input")
})

/** `line`: least squares over the measurements. `table`: between the nearest of them. */
const Method = Schema.Literals(["line", "table"])

/** The same of matrix products, whose size is multiply-accumulates. */
const ProductLineSettings = Schema.Struct({
  fixed: Seconds,
  /** Seconds for each multiply-accumulate. */
  perUnit: Amount,
  unit: Schema.Literal("MAC"),
  /** Of the products that it was fitted to; wider numbers count as more. */
  dtype: withDefault(Schema.Literals(["float32", "bfloat16", "float16"]), "float32")
})

/** Collectives of a tier, from a profile, or as lines. */
const CollectiveCosts = Schema.Union([
  Schema.Struct({
    profile: Path,
    method: withDefault(Method, "table"),
    /** Rows of these links, as the profile calls them. Default: unshaped, or the only kind there is. */
    link: Schema.optionalKey(Schema.NonEmptyString)
  }),
  Schema.Struct({
    all_to_all: Schema.optionalKey(LineSettings),
    all_reduce: Schema.optionalKey(LineSettings),
    all_gather: Schema.optionalKey(LineSettings),
    reduce_scatter: Schema.optionalKey(LineSettings)
  })
])

/** All-to-all and all-reduce where a scenario says nothing of them. */
export const shippedBetween = "traces/profiles/nccl-h200-sockets.arrow"

const MoeCostSettings = Schema.Struct({
  /** Matrix products: rows of a profile with attributes m, k and n, or a line over multiply-accumulates. */
  products: withDefault(
    Schema.Union([
      Schema.Struct({
        profile: Path,
        /** Products of this name alone. Default: whatever the profile has. */
        op: Schema.optionalKey(Schema.NonEmptyString),
        method: withDefault(Method, "table")
      }),
      ProductLineSettings
    ]),
    { profile: "traces/profiles/h200-ops.arrow" }
  ),
  /** All-to-all and all-reduce. What is not said here, links alone bound. */
  between: withDefault(CollectiveCosts, { profile: shippedBetween }),
  /** All-gather and reduce-scatter. */
  inside: withDefault(CollectiveCosts, {}),
  /**
   * Share of a rank's own port that a collective takes at its full speed: above 0.5, collectives between and inside nodes
   * that run at once slow each other.
   */
  portShare: Schema.optionalKey(Schema.Number.check(Schema.isBetween({ minimum: 0.01, maximum: 1 }))),
  /** How many times as long a rank's kernels take while a collective of it is under way, or waits for others. Default: 1. */
  slowdown: Schema.optionalKey(Slowdown),
  /** How much longer a collective takes that begins while a kernel of its rank runs. Default: as profiles of collectives have it. */
  wait: Schema.optionalKey(Seconds)
})

/** Which experts tokens choose, where none is dropped. */
const RoutingSettings = Schema.Union([
  /**
   * Drawn: expert number i of a layer's own order is 1 / (1 + skew i) as likely as its first. 0: all alike.
   */
  Schema.Struct({ skew: Amount.check(Schema.isLessThanOrEqualTo(1000)) }),
  /** Recorded: a routing file; tokens go to ranks in blocks, and are used again where there are too few. */
  Schema.Struct({ trace: Path })
])

/** A scenario of MoE training; docs/moe-training.md has its fields. */
export const MoeTrainingScenario = Schema.Struct({
  task: Schema.Literal("moe-training"),
  ...commonFields,
  model: MoeModelSettings,
  world: WorldSettings,
  costs: withDefault(MoeCostSettings, {}),
  /** With `capacityFactor: dropless` only. Default: all experts alike. */
  routing: Schema.optionalKey(RoutingSettings),
  /** `algorithm: fsmoe` is short for `algorithm: {name: fsmoe}`. */
  algorithm: MoeTrainingSettings,
  network: NetworkModel,
  /** Default: what the products were measured on; an NVIDIA H200 where they are a line. */
  device: Schema.optionalKey(DeviceSettings),
  /** What launches, collectives and reads cost the host. Default: nothing. */
  host: Schema.optionalKey(HostSettings),
  /** Parameters, gradients and activations count; SGD has no state. */
  memory: Schema.optionalKey(MemorySettings),
  /** Of plain SGD; without it parameters stay as they are, and a step has no update. */
  learningRate: Schema.optionalKey(Schema.Number.check(Schema.isGreaterThan(0))),
  /** Steps measured, after one of warm-up. */
  steps: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })), 2),
  faults: withDefault(Schema.Array(FaultSettings), []),
  jitter: Jitter
})
export type MoeTrainingScenario = typeof MoeTrainingScenario.Type

/** What the host has not to do: experts of a capacity need no numbers from the device. */
export const hostNever = ({ model }: MoeTrainingScenario): ReadonlyArray<HostWork> =>
  model.capacityFactor === "dropless" ? ["copy"] : ["read", "copy"]
