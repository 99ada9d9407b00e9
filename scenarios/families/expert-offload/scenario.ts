// What a scenario of generation with offloaded experts says.
import * as Schema from "effect/Schema"
import type { HostWork } from "../../host.ts"
import { Experts, Layers, Listed, Positive, withDefault } from "../../../core/fields.ts"
import {
  commonFields,
  DeviceSettings,
  HostLinkSettings,
  HostSettings,
  Jitter,
  MemorySettings,
  modelNamed,
  Path
} from "../../sections.ts"
import { Bytes } from "../../../core/units.ts"
import { moeModelNames } from "../../../core/algorithms/expert-offload/model.ts"
import { ExpertOffloadSettings } from "../../../core/algorithms/expert-offload/algorithms.ts"

const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

const sizes = {
  layers: Schema.optionalKey(Layers),
  experts: Schema.optionalKey(Experts),
  topK: Schema.optionalKey(Positive),
  width: Schema.optionalKey(Positive),
  heads: Schema.optionalKey(Positive),
  kvHeads: Schema.optionalKey(Positive),
  /** Of one expert. */
  ffnWidth: Schema.optionalKey(Positive),
  vocabulary: Schema.optionalKey(Positive),
  /** Default: width / heads, or as published. */
  headWidth: Schema.optionalKey(Positive),
  /** Of weights, activations and cache. Default: as published. */
  dtype: Schema.optionalKey(Schema.Literals(["float32", "bfloat16"])),
  /** Of the experts' weights, where they are kept in another than they are computed with. Default: as published. */
  expertDtype: Schema.optionalKey(
    Schema.Literals(["float32", "bfloat16", "float8", "int8", "float4", "mxfp4"])
  )
}

/** A published model, with sizes of its own where given. */
const ModelSettings = Schema.Struct({
  like: modelNamed(moeModelNames),
  ...sizes
})

const Statistics = Schema.Struct({
  /** Exponent of the popularity of experts; 0: all alike. */
  zipf: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 4 })), 0),
  /** Share of a token's experts that the sequence's next token uses again. */
  repeat: withDefault(Share, 0),
  /** Kinds of sequences, each with favourites of its own. */
  topics: withDefault(Positive, 1)
})

const RoutingSettings = Schema.Union([
  /** Drawn from published statistics. */
  Schema.Struct({
    preset: Schema.Literals(["llama4", "deepseek-v2-lite", "mixtral", "switch", "uniform"])
  }),
  /** Drawn from statistics given here. */
  Schema.Struct({ statistics: Statistics }),
  /** A routing file, as `sim import routing` writes. */
  Schema.Struct({ trace: Path })
])

/** A scenario of generation with experts in host memory; docs/expert-offload.md has its fields. */
export const ExpertOffloadScenario = Schema.Struct({
  task: Schema.Literal("expert-offload"),
  ...commonFields,
  model: ModelSettings,
  routing: RoutingSettings,
  workload: withDefault(
    Schema.Struct({
      /** Sequences generated together. */
      batch: withDefault(Listed, 8),
      promptTokens: withDefault(Listed, 64),
      /** False: the prompt's keys and values are taken as there, and generation begins at once. */
      prefill: withDefault(Schema.Boolean, true),
      decodeTokens: withDefault(Listed, 64),
      /** Decoding steps at the beginning that are not measured. */
      warmupSteps: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })), 8),
      /** Batches that take turns, step by step; without prefill only. */
      batches: withDefault(Schema.Literals([1, 2]), 1),
      /** Divide the tokens of two batches anew for each step, by the experts they use. */
      tokenScheduler: withDefault(Schema.Boolean, false)
    }),
    {}
  ),
  cache: Schema.Struct({
    /** Room for experts: slots of each layer on average, or bytes of all. */
    slotsPerLayer: Schema.optionalKey(Positive),
    bytes: Schema.optionalKey(Bytes),
    /** Whether each layer has its own slots. Default: as the algorithm has it, or per-layer. */
    scope: Schema.optionalKey(Schema.Literals(["per-layer", "shared"])),
    /** Beside those, for algorithms that let experts pass through. */
    stagingSlots: withDefault(Positive, 1),
    /**
     * Copy an expert back to the host when it leaves, as caches that keep no copy there must: before the load that takes its
     * slot on one stream, or on a stream of its own, beside other loads.
     */
    writeBack: withDefault(Schema.Literals(["none", "same-stream", "own-stream"]), "none")
  }),
  /** Copies between host and device; default: as measured. */
  hostLink: Schema.optionalKey(HostLinkSettings),
  /** What launches and reads cost the host. Default: nothing. */
  host: Schema.optionalKey(HostSettings),
  /** `algorithm: lru` is short for `algorithm: {name: lru}`. */
  algorithm: ExpertOffloadSettings,
  /** A profile with timed GEMMs, copies and attention. */
  costs: withDefault(Path, "traces/profiles/h200-ops.arrow"),
  /** For what the profile lacks; default: the profile's. Another device than the profile's has nothing but estimates. */
  device: Schema.optionalKey(DeviceSettings),
  memory: Schema.optionalKey(MemorySettings),
  jitter: Jitter
})
export type ExpertOffloadScenario = typeof ExpertOffloadScenario.Type

/** What the host has not to do: there is one rank. */
export const hostNever = ["collective", "hook"] as const satisfies ReadonlyArray<HostWork>
