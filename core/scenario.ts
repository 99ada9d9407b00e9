// What a scenario file says, field by field: model, world, algorithm, what goes wrong. Both the simulator and the executor
// read it. Only shapes and defaults are here; files are resolved and ranges that span fields checked by whoever runs it.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { DataParallelSettings, dataParallelNames } from "./algorithms/data-parallel/settings.ts"
import { Bandwidth, Bytes, Count, Flops, Seconds } from "./units.ts"

const withDefault = <S extends Schema.Constraint>(schema: S, value: S["Encoded"]) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema)

const Positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000_000 }))
const PositiveSeconds = Seconds.check(Schema.isGreaterThan(0))

/** A file, relative to the scenario's folder. */
const Path = Schema.NonEmptyString

/** Step time by number of ranks, for ranks that share one device: {2: 60.6ms, 4: 113ms}; linear between. */
const StepSecondsByRanks = Schema.Record(Schema.String, PositiveSeconds)

/** A model whose layers and costs were measured. */
export const ProfiledModel = Schema.Struct({
  profile: Path,
  /** `span`: device time and the host's launch gaps. `busy`: device time alone, as if the host were never late. */
  hostTime: withDefault(Schema.Literals(["span", "busy"]), "span"),
  /**
   * Scale the profile so that one local step takes this long: first the host's gaps shrink or grow; if the step is
   * shorter than the device's own time, or `scale` says so, everything does. Default: the un-profiled step time that the
   * profile carries, if any.
   */
  stepSeconds: Schema.optionalKey(Schema.Union([PositiveSeconds, StepSecondsByRanks]))
})

/** A model of equal layers, as published tables describe one: forward 1/3, backward 2/3 of the step. */
export const UniformModel = Schema.Struct({
  layers: Positive,
  parameters: Count.check(Schema.isGreaterThan(0)),
  stepSeconds: PositiveSeconds
})

const transformer = {
  layers: Positive,
  width: Positive,
  heads: Positive,
  vocabulary: withDefault(Positive, 50257),
  context: withDefault(Positive, 1024),
  batch: withDefault(Positive, 4)
}

/** A model described by its architecture; costs are roofline estimates of the scenario's device. */
export const Gpt2Model = Schema.Struct({ gpt2: Schema.Struct(transformer) })
export const LlamaModel = Schema.Struct({
  llama: Schema.Struct({
    ...transformer,
    kvHeads: Schema.optionalKey(Positive),
    ffnWidth: Positive,
    tied: withDefault(Schema.Boolean, false)
  })
})
export const MixtralModel = Schema.Struct({
  mixtral: Schema.Struct({
    ...transformer,
    kvHeads: Schema.optionalKey(Positive),
    ffnWidth: Positive,
    experts: withDefault(Positive, 8),
    topK: withDefault(Positive, 2),
    tied: withDefault(Schema.Boolean, false)
  })
})

export const ModelSettings = Schema.Union([ProfiledModel, UniformModel, Gpt2Model, LlamaModel, MixtralModel])
export type ModelSettings = typeof ModelSettings.Type

export const LinkSettings = Schema.Struct({
  bandwidth: withDefault(Bandwidth, "unlimited"),
  /** One way. */
  latency: withDefault(Seconds, 0),
  /** Largest IP packet of TCP over Ethernet, bytes: its headers take their share of the bandwidth. Default: none do. */
  mtu: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 576, maximum: 65535 })))
})

/** Links between sites: one uplink per site, or a link for each pair of sites from a file of delays and bandwidths. */
export const WanSettings = Schema.Union([Schema.Struct({ pairs: Path }), LinkSettings])

export const SiteSettings = Schema.Struct({
  name: Schema.NonEmptyString,
  ranks: Positive
})

export const WorldSettings = Schema.Struct({
  /** All ranks; over several sites they are divided equally. Not with a list of sites, which says it itself. */
  ranks: Schema.optionalKey(Positive),
  ranksPerNode: withDefault(Positive, 1),
  /** How many equal sites, or what each is. */
  sites: withDefault(Schema.Union([Positive, Schema.Array(SiteSettings).check(Schema.isMinLength(1))]), 1),
  links: withDefault(
    Schema.Struct({
      /** Every rank's port inside its node. */
      intra: withDefault(LinkSettings, {}),
      /** Every node's network interface. */
      inter: withDefault(LinkSettings, {}),
      wan: Schema.optionalKey(WanSettings)
    }),
    {}
  )
})
export type WorldSettings = typeof WorldSettings.Type

export const CollectiveSettings = Schema.Struct({
  algorithm: withDefault(Schema.Literals(["ring", "tree", "hierarchical"]), "ring"),
  /** A profile with collectives measured on links that were no limit: what the software can do at best. */
  measured: Schema.optionalKey(Path)
})

/** Peak rates, for costs that nothing measured. */
export const DeviceSettings = Schema.Union([
  Schema.Literals(["NVIDIA H200", "NVIDIA H100", "NVIDIA A100", "NVIDIA A40"]),
  Schema.Struct({ name: withDefault(Schema.String, "device"), flops: Flops, memoryBandwidth: Bandwidth })
])

const during = {
  from: withDefault(Seconds, 0),
  /** Default: for good. */
  for: Schema.optionalKey(PositiveSeconds)
}

export const FaultSettings = Schema.Union([
  /** Kernels of a rank run at `speed` (0.5: half) for a while. */
  Schema.Struct({ straggler: Schema.Int, speed: Schema.Number.check(Schema.isGreaterThan(0)), ...during }),
  /** A rank is away, then goes on where it stopped. */
  Schema.Struct({ outage: Schema.Int, ...during }),
  /** Links have another bandwidth or latency for a while; bandwidth 0 takes them down. */
  Schema.Struct({
    link: Schema.Literals(["intra", "inter", "wan"]),
    /** Rank, node or site whose links these are; all of the tier by default. */
    of: Schema.optionalKey(Schema.Int),
    bandwidth: Schema.optionalKey(Bandwidth),
    latency: Schema.optionalKey(Seconds),
    ...during
  })
])
export type FaultSettings = typeof FaultSettings.Type

/** `algorithm: ddp` is short for `algorithm: {name: ddp}`. */
export const AlgorithmSettings = DataParallelSettings
export type AlgorithmSettings = DataParallelSettings
export const algorithmNames = dataParallelNames

export const Scenario = Schema.Struct({
  name: Schema.NonEmptyString,
  description: Schema.optionalKey(Schema.String),
  model: ModelSettings,
  world: WorldSettings,
  algorithm: AlgorithmSettings,
  network: withDefault(Schema.Literals(["fluid", "alpha-beta"]), "fluid"),
  collectives: withDefault(CollectiveSettings, {}),
  device: Schema.optionalKey(DeviceSettings),
  /** What each rank's memories hold; unbounded where not said. Parameters, gradients and optimizer state count, activations do not. */
  memory: Schema.optionalKey(
    Schema.Struct({ device: Schema.optionalKey(Bytes), host: Schema.optionalKey(Bytes) })
  ),
  /** Steps measured after the warm-up; rounded up to whole periods of the algorithm. Default: one period, at least 8. */
  steps: Schema.optionalKey(Positive),
  faults: withDefault(Schema.Array(FaultSettings), []),
  /** Relative standard deviation of every kernel's time. */
  jitter: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 })), 0),
  seed: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 52 })), 0)
})
export type Scenario = typeof Scenario.Type

/** What a study does with a scenario: sweeps axes, and looks for the value of one field that reaches a target. */
export const Study = Schema.Struct({
  /** Field path of the scenario to the values it takes; the product of all axes is run. */
  axes: Schema.Record(Schema.String, Schema.Array(Schema.Unknown).check(Schema.isMinLength(1))),
  /** For every point: the value of `vary` at which `metric` is nearest to, but not above, each target. */
  find: Schema.optionalKey(
    Schema.Struct({
      vary: Schema.NonEmptyString,
      /** Values tried, ascending: a list, or logarithmically spaced. */
      over: Schema.Union([
        Schema.Array(Schema.Unknown).check(Schema.isMinLength(2)),
        Schema.Struct({ from: Bandwidth, to: Bandwidth, points: Positive })
      ]),
      metric: Schema.Literals(["computeUtilisation"]),
      targets: Schema.Array(Schema.Number).check(Schema.isMinLength(1))
    })
  )
})
export type Study = typeof Study.Type

/** A study file is a scenario with a `study` section. */
export const ScenarioFile = Schema.Struct({ ...Scenario.fields, study: Schema.optionalKey(Study) })
export type ScenarioFile = typeof ScenarioFile.Type
