// The sections that scenarios of several tasks share: model, world, links, device, what goes wrong. Only shapes and defaults
// are here; files are resolved and ranges that span fields checked by whoever runs a scenario. Knows no algorithm.
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import { deviceNamed, deviceNames } from "../core/cost/devices.ts"
import { Experts, Layers, Positive, Ranks, withDefault } from "../core/fields.ts"
import { collectiveAlgorithms } from "../core/wire/network.ts"
import { Bandwidth, Bytes, Count, Flops, Seconds } from "../core/units.ts"

export const PositiveSeconds = Seconds.check(Schema.isGreaterThan(0))

/** Copies between host and device. */
export const HostLinkSettings = Schema.Struct({
  bandwidth: Bandwidth.check(Schema.isGreaterThan(0)),
  /** Before the first byte of a copy. */
  latency: withDefault(Seconds, "10us")
})

/** A file, relative to the scenario's folder. */
export const Path = Schema.NonEmptyString

/** Step time by number of ranks, for ranks that share one device: {2: 60.6ms, 4: 113ms}; linear between. */
const StepSecondsByRanks = Schema.Record(Schema.String, PositiveSeconds)

/** A model whose layers and costs were measured. */
const ProfiledModel = Schema.Struct({
  profile: Path,
  /**
   * Of a profile that has none, because its trace was recorded without shapes: how many parameters the model has. They are
   * spread over the layers by their backward time.
   */
  parameters: Schema.optionalKey(Count.check(Schema.isGreaterThan(0))),
  /** `span`: device time and the host's launch gaps. `busy`: device time alone, as if the host were never late. */
  hostTime: withDefault(Schema.Literals(["span", "busy"]), "span"),
  /**
   * Scale the profile so that one local step takes this long: first the host's gaps shrink or grow; if the step is
   * shorter than the device's own time, everything does. Default: the un-profiled step time that the
   * profile carries, if any.
   */
  stepSeconds: Schema.optionalKey(Schema.Union([PositiveSeconds, StepSecondsByRanks])),
  /**
   * Sequences and tokens of each that were profiled; default: those of `activations.of`. Where that says others, passes are scaled
   * by what its kernels are estimated to take.
   */
  recorded: Schema.optionalKey(
    Schema.Struct({ batch: Schema.optionalKey(Positive), context: Schema.optionalKey(Positive) })
  )
})

/** A model of equal layers, as published tables describe one: forward 1/3, backward 2/3 of the step. */
const UniformModel = Schema.Struct({
  layers: Layers,
  parameters: Count.check(Schema.isGreaterThan(0)),
  stepSeconds: PositiveSeconds
})

const transformer = {
  layers: Layers,
  width: Positive,
  heads: Positive,
  vocabulary: withDefault(Positive, 50257),
  /** Embedding rows and logits are padded to a multiple of it, 64 or 128 for GPUs; values stay the same. */
  vocabularyMultiple: withDefault(Positive, 1),
  context: withDefault(Positive, 1024),
  batch: withDefault(Positive, 4)
}

const ofDecoder = {
  kvHeads: Schema.optionalKey(Positive),
  /** Default: width / heads. */
  headWidth: Schema.optionalKey(Positive)
}

/** Of a described model: one step of it, measured on the device. All its estimates are scaled by what that step is of its own. */
const calibrated = {
  measured: Schema.optionalKey(
    Schema.Struct({
      stepSeconds: PositiveSeconds,
      /** Sequences and tokens of each in that step; default: the model's. */
      batch: Schema.optionalKey(Positive),
      context: Schema.optionalKey(Positive)
    })
  )
}

/** Architectures with their sizes. */
const gpt2 = { gpt2: Schema.Struct(transformer) }
const llama = {
  llama: Schema.Struct({
    ...transformer,
    ...ofDecoder,
    ffnWidth: Positive,
    tied: withDefault(Schema.Boolean, false)
  })
}
const mixtral = {
  mixtral: Schema.Struct({
    ...transformer,
    ...ofDecoder,
    ffnWidth: Positive,
    experts: withDefault(Experts, 8),
    topK: withDefault(Positive, 2),
    tied: withDefault(Schema.Boolean, false)
  })
}

export const ArchitectureSettings = Schema.Union([
  Schema.Struct(gpt2),
  Schema.Struct(llama),
  Schema.Struct(mixtral)
])
export const ModelSettings = Schema.Union([
  ProfiledModel,
  UniformModel,
  // Described by its architecture; costs are estimates for the scenario's device.
  Schema.Struct({ ...gpt2, ...calibrated }),
  Schema.Struct({ ...llama, ...calibrated }),
  Schema.Struct({ ...mixtral, ...calibrated })
])
export type ModelSettings = typeof ModelSettings.Type

/** Most bytes of one rank's to another that may be on their way across a link: TCP's window times connections, or buffers of the software. */
export const Window = Bytes.check(Schema.isGreaterThan(0))

export const LinkSettings = Schema.Struct({
  /** A link that is down for a while is a fault. */
  bandwidth: withDefault(Bandwidth.check(Schema.isGreaterThan(0)), "unlimited"),
  /** One way. */
  latency: withDefault(Seconds, 0),
  /** Largest IP packet of TCP over Ethernet, bytes: its headers take their share of the bandwidth. Default: none do. */
  mtu: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 576, maximum: 65535 }))),
  window: Schema.optionalKey(Window)
})

/**
 * Links between sites: one uplink per site, or a link for each pair of sites. `pairs` is a file that has for "A-B"
 * [round trip in ms, Gbit/s]; of both directions, unless "B-A" is there too.
 */
const WanSettings = Schema.Union([
  Schema.Struct({ pairs: Path, window: Schema.optionalKey(Window) }),
  LinkSettings
])

/** As many on every node, or of each node of a site, in order. */
const RanksPerNode = Schema.Union([Ranks, Schema.Array(Ranks).check(Schema.isMinLength(1))])

const SiteSettings = Schema.Struct({
  name: Schema.NonEmptyString,
  /** Not needed where each of its nodes is said. */
  ranks: Schema.optionalKey(Ranks),
  /** Default: the world's. */
  ranksPerNode: Schema.optionalKey(RanksPerNode)
})
export type SiteSettings = typeof SiteSettings.Type

export const WorldSettings = Schema.Struct({
  /** All ranks; over several sites they are divided equally. Not with a list of sites, or of nodes, which says it itself. */
  ranks: Schema.optionalKey(Ranks),
  ranksPerNode: withDefault(RanksPerNode, 1),
  /** How many equal sites, or what each is. */
  sites: withDefault(Schema.Union([Ranks, Schema.Array(SiteSettings).check(Schema.isMinLength(1))]), 1),
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

/** How many times as long something takes beside something else. */
export const Slowdown = Schema.Number.check(Schema.isBetween({ minimum: 1, maximum: 100 }))

export const CollectiveSettings = Schema.Struct({
  algorithm: withDefault(Schema.Literals(collectiveAlgorithms), "ring"),
  /** A profile with collectives measured on links that were no limit: what the software can do at best. */
  measured: Schema.optionalKey(Path),
  /** The same of collectives that stay inside a node, where others were measured than those between nodes. */
  inside: Schema.optionalKey(Path),
  /**
   * How many times as long kernels take beside collectives, as `sim import kineto` finds it in a trace: what communicates takes
   * multiprocessors and memory bandwidth, also while it waits.
   */
  slowdown: Schema.optionalKey(Slowdown),
  /** The same beside collectives that stay inside a node. */
  slowdownInside: Schema.optionalKey(Slowdown),
  /**
   * How much longer a collective takes that begins while a kernel of its rank runs, until its own kernels get multiprocessors. Default:
   * as the measured collectives have it, by message; nothing where they do not.
   */
  wait: Schema.optionalKey(Seconds),
  /**
   * Of direct collectives: the first messages of each wait for word that their receivers are there, as those of this project's processes
   * over TCP do: a way more.
   */
  handshake: Schema.optionalKey(Schema.Boolean),
  /**
   * Of rings: so much of each step goes around at a time, and the next when it has. NCCL's have half of NCCL_BUFFSIZE on each channel:
   * 4 MiB on two, as it comes. Default: all at once.
   */
  chunk: Schema.optionalKey(Bytes.check(Schema.isGreaterThan(0)))
})

export type CollectiveSettings = typeof CollectiveSettings.Type

/** A model's name in any case, whatever stands between its parts, with or without its owner. */
const plainModelName = (name: string): string =>
  name
    .toLowerCase()
    .replace(/^.*\//u, "")
    .replace(/^meta[-_ ]/u, "")
    .replaceAll(/[\s_-]/gu, "")

/** What a model was tuned for, when, and how large its parts are: "-Instruct", "-v0.1", "-2507", "-17B". */
const lastWord = /[-_ ](?:instruct|chat|base|hf|it|thinking|v\d+(?:\.\d+)?|\d{4}|17b|16e|128e)$/u

/**
 * Names that a given one may stand for, the fullest first: a version is part of the name where it tells two models apart
 * (DeepSeek-V2 is not V3), and can be left out only where what is left is a model's whole name.
 */
const readingsOf = (given: string): ReadonlyArray<string> => {
  const readings: Array<string> = []
  for (let name = given.toLowerCase(), last = ""; name !== last;) {
    readings.push(plainModelName(name))
    last = name
    name = name.replace(lastWord, "")
  }
  return readings
}

/** One of published models by any spelling of its name ("meta-llama/Llama-3.1-8B-Instruct"); decoded as the one it has here. */
export const modelNamed = <const Name extends string>(names: ReadonlyArray<Name>) =>
  Schema.String.pipe(
    Schema.decodeTo(Schema.Literals(names), {
      decode: SchemaGetter.transform(
        // What is none of them is left to the literals to refuse.
        (given: string) =>
          (readingsOf(given)
            .map((reading) => names.find((name) => plainModelName(name) === reading))
            .find((name) => name !== undefined) ?? given) as NoInfer<Name>
      ),
      encode: SchemaGetter.transform((name: string) => name)
    })
  )

/** By any name that the device is known by; decoded as the one it has here. */
const DeviceName = Schema.String.pipe(
  Schema.decodeTo(Schema.Literals(deviceNames), {
    decode: SchemaGetter.transform((name: string) => deviceNamed(name)?.name ?? name),
    encode: SchemaGetter.transform((name: string) => name)
  })
)

/** Peak rates, for costs that nothing measured. */
export const DeviceSettings = Schema.Union([
  DeviceName,
  Schema.Struct({
    name: withDefault(Schema.String, "device"),
    flops: Flops.check(Schema.isGreaterThan(0)),
    memoryBandwidth: Bandwidth.check(Schema.isGreaterThan(0)),
    /** Share of those rates that kernels reach: what a measured step is of an estimated one. Default: all. */
    efficiency: Schema.optionalKey(Schema.Number.check(Schema.isBetween({ minimum: 0.001, maximum: 1 })))
  })
])

export type DeviceSettings = typeof DeviceSettings.Type

const LaunchMode = Schema.Literals(["eager", "compiled", "graph"])

/** Whether each step ends with a read of what it computed, as `loss.item()` is: nothing is launched before that. */
const readEachStep = withDefault(Schema.Boolean, false)

/** Whether copies that are needed now are waited for before anything more is launched. */
const waitsForCopies = Schema.optionalKey(Schema.Boolean)

/**
 * What the host spends on launches: by a usual kind of it, as a profile has it, or as stated. Default: as the profile has it that
 * costs come from, else nothing.
 */
export const HostSettings = Schema.Union([
  Schema.Literals(["none", "eager", "compiled", "graph"]),
  Schema.Struct({
    measured: Path,
    /** Default: as the program ran that was measured. */
    mode: Schema.optionalKey(LaunchMode),
    /** Default: as was measured; else in eager mode. */
    waitsForCopies,
    readEachStep
  }),
  Schema.Struct({
    /** `eager`: as often as eager PyTorch launches for a kernel of the catalogue. */
    mode: Schema.optionalKey(LaunchMode),
    /** Each kernel or copy. */
    launch: withDefault(Seconds, 0),
    /** Each call of a collective. */
    collective: withDefault(Seconds, 0),
    /** Each tensor that a collective carries. */
    hook: withDefault(Seconds, 0),
    /** Each read that the program waits for. */
    read: withDefault(Seconds, 0),
    /** Each replay of a captured graph. */
    replay: withDefault(Seconds, 0),
    /** Default: in eager mode. */
    waitsForCopies,
    readEachStep
  })
])
export type HostSettings = typeof HostSettings.Type

const during = {
  from: withDefault(Seconds, 0),
  /** Default: for good. */
  for: Schema.optionalKey(PositiveSeconds)
}

export const FaultSettings = Schema.Union([
  /** Kernels of a rank run at `speed` (0.5: half) for a while. */
  Schema.Struct({
    straggler: Schema.Int,
    speed: Schema.Number.check(Schema.isBetween({ minimum: 1e-6, maximum: 1e6 })),
    ...during
  }),
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

/** What each rank's memories hold; unbounded where not said. */
export const MemorySettings = Schema.Struct({
  device: Schema.optionalKey(Bytes),
  host: Schema.optionalKey(Bytes)
})

/** Fields of every scenario, whatever its task. */
export const commonFields = {
  name: Schema.NonEmptyString,
  description: Schema.optionalKey(Schema.String),
  seed: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 52 })), 0)
}

/** Relative standard deviation of every kernel's time. */
export const Jitter = withDefault(Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 })), 0)

export const NetworkModel = withDefault(Schema.Literals(["fluid", "alpha-beta"]), "fluid")
