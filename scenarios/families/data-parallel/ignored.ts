// Fields of a data-parallel scenario that change nothing for the algorithm it chooses.
import { greatest } from "../../../core/extremes.ts"
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import { dataParallelNamed } from "../../../core/algorithms/data-parallel/algorithms.ts"
import type { CostModel, TracedCostModel } from "../../../core/cost/cost-model.ts"
import { defaultOf } from "../../../core/fields.ts"
import { dtypeBits } from "../../../core/machine/tensor.ts"
import * as Schema from "effect/Schema"
import { DataParallelScenario, hostNever } from "./scenario.ts"
import { keptBy } from "./activation-settings.ts"
import { ShardSettings } from "./shard-settings.ts"
import { layerDtypeOf, lossScalingOf } from "./training-settings.ts"
import type { RunFacts } from "../../family.ts"
import { isArchitecture } from "../../model-graph.ts"
import {
  deviceWarnings,
  faultWarnings,
  hostWarnings,
  hostMemoryWarnings,
  realWarnings,
  longerThanLinks,
  seedWarnings,
  slipWarnings,
  withRings,
  worldWarnings
} from "../../ignored.ts"
import { nodesOf, rankCount, siteSizes } from "../../world.ts"

const usualWire = ({ algorithm }: DataParallelScenario): unknown =>
  Reflect.get(defaultsOf(dataParallelNamed(algorithm.name).settings), "wire")

/** What in `training` needs the norm of all gradients. */
export const normWanted = (training: DataParallelScenario["training"]): string | undefined =>
  training?.clipNorm !== undefined
    ? "training.clipNorm"
    : lossScalingOf(training) === undefined
      ? undefined
      : "training.precision float16"

/** What the norm of all gradients costs an algorithm whose messages overlap its layers' steps. */
const clipWarnings = ({ algorithm, training }: DataParallelScenario): ReadonlyArray<string> => {
  const wanted = normWanted(training)
  const lost =
    wanted === undefined ? undefined : dataParallelNamed(algorithm.name).lostToClipping?.(algorithm)
  return lost === undefined ? [] : [`${lost}: with ${wanted} a layer's step waits for all gradients`]
}

const lossScaleWarnings = ({ training }: DataParallelScenario): ReadonlyArray<string> =>
  training?.lossScale === undefined || lossScalingOf(training) !== undefined
    ? []
    : [`training.lossScale has no effect: training.precision ${training.precision} needs no scaled loss`]

/** How many ranks hold a model together, at most; what is uneven is refused elsewhere. */
const divisionOf = ({ shard, world }: DataParallelScenario): number => {
  switch (shard?.within) {
    case undefined:
      return 1
    case "world":
      return rankCount(world)
    case "site":
      return greatest(siteSizes(world))
    case "node":
      return greatest(nodesOf(world).flat())
  }
}

/** Nothing travels between replicas where there is one. */
const wireWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> => {
  const ranks = rankCount(scenario.world)
  if (scenario.algorithm.wire === usualWire(scenario)) return []
  if (ranks === 1) return ["algorithm.wire has no effect: there is one rank"]
  return scenario.shard !== undefined && divisionOf(scenario) === ranks
    ? ["algorithm.wire has no effect: all ranks hold one model together (shard.within)"]
    : []
}

/** What changes nothing of a model in parts. */
const shardWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> => {
  const { shard, world } = scenario
  if (shard === undefined) return []
  const { within, parameters, reshardAfterForward, prefetch, units, copies } = shard
  const usual = defaultsOfShards
  const warnings: Array<string> = []
  const none = (field: string, why: string) => warnings.push(`shard.${field} has no effect: ${why}`)
  const each = divisionOf(scenario)
  if (each === 1)
    warnings.push(
      `shard divides nothing: there is one rank${within === "world" ? "" : ` in each ${within}`}, of which nothing travels; what is left are the copies that it keeps, and layers averaged by unit`
    )
  else if (each === rankCount(world))
    warnings.push("shard.within leaves the algorithm nothing to average: all ranks hold one model together")
  else if (within === "node" && nodesOf(world).every((nodes) => nodes.length === 1))
    warnings.push('shard.within "node" is "site" here: each site is one node')
  const whole = "parameters are whole on every rank"
  if (copies && !parameters) none("copies", whole)
  const unused = !parameters
    ? whole
    : units === "model"
      ? "the whole model is one unit"
      : reshardAfterForward
        ? undefined
        : "parameters stay gathered"
  if (unused === undefined) return warnings
  if (prefetch !== usual.prefetch) none("prefetch", unused)
  if (!reshardAfterForward && (!parameters || units === "model")) none("reshardAfterForward", unused)
  return warnings
}

/** Tree and hierarchical are ways of an all-reduce: what a model in parts has of those, and between whom. */
const shardCollectiveWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> => {
  const { shard, world, collectives, training } = scenario
  const { algorithm } = collectives
  const ranks = rankCount(world)
  const each = divisionOf(scenario)
  if (shard === undefined || (algorithm !== "tree" && algorithm !== "hierarchical")) return []
  // Gradients that stay whole are all-reduced by those who hold a model together, and so are the norms that clip them.
  if (each === 1 || !shard.gradients || normWanted(training) !== undefined) return []
  const ring = `collectives.algorithm "${algorithm}" is "ring" here:`
  if (each === ranks) return [`${ring} gathers and scatters go around a ring, and nothing else travels`]
  if (algorithm === "tree") return []
  // One on each node, or one in each site.
  const sites = nodesOf(world)
  return shard.within === "node" && sites.length > 1 && sites.some((nodes) => nodes.length > 1)
    ? []
    : [
        `${ring} gathers and scatters go around a ring, and those who hold the same part are on no common level`
      ]
}

/** Gradients travel of a model in parts, and with algorithms that average them rather than parameters, now and then. */
const synchronizeWarnings = ({
  training,
  shard,
  algorithm,
  world
}: DataParallelScenario): ReadonlyArray<string> => {
  if (training === undefined || training.synchronize === "last") return []
  const none = "training.synchronize has no effect:"
  if (training.accumulate === 1) return [`${none} a step has one batch`]
  if (rankCount(world) === 1 && shard === undefined) return [`${none} there is one rank`]
  return shard === undefined && "period" in algorithm ? [`${none} ${algorithm.name} sends no gradients`] : []
}

/** What `training` says in vain, on either machine. */
const trainingWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> => [
  ...lossScaleWarnings(scenario),
  ...synchronizeWarnings(scenario)
]

/** Layers of which no launches are known are one op each, launched within the time that was measured or stated. */
export const launchWarnings = (
  { host }: DataParallelScenario,
  costs: Pick<CostModel, "host">
): ReadonlyArray<string> =>
  typeof host === "object" && "launch" in host && host.launch > 0 && costs.host?.launchesLayers === false
    ? [
        "host.launch has no effect on the model's layers, whose times have their launches in them: it is of the algorithm's own kernels"
      ]
    : []

/** A profile's layers are timed; what another device changes are the algorithm's own kernels. */
const layerDeviceWarnings = (
  { model, device }: DataParallelScenario,
  facts: RunFacts | undefined
): ReadonlyArray<string> =>
  device !== undefined &&
  "profile" in model &&
  facts?.estimates.some(({ carriedOver }) => carriedOver === true) === true
    ? [
        "device has no effect on the model's layers, whose times are measured: it is of the algorithm's own kernels"
      ]
    : []

const usualPrecision = defaultOf(DataParallelScenario.fields.precision)

const precisionWarnings = ({ model, precision }: DataParallelScenario): ReadonlyArray<string> =>
  precision === usualPrecision || isArchitecture(model)
    ? []
    : [
        `precision has no effect: the times of the model's layers are ${"profile" in model ? "measured" : "stated"}`
      ]

/** `costs` are of a described model's kernels, and of what is no layer of any other. */
export const costWarnings = (
  { model, costs: named }: DataParallelScenario,
  { lookedUp }: Pick<TracedCostModel, "lookedUp">,
  hostIsTheirs: boolean
): ReadonlyArray<string> =>
  named === undefined || lookedUp || hostIsTheirs || isArchitecture(model)
    ? []
    : [
        `costs have no effect: the times of the model's layers are ${"profile" in model ? "measured" : "stated"}, and no other kernel runs`
      ]

const defaultsOfShards = Schema.decodeUnknownSync(ShardSettings)({})

/** Whether any collective goes around a ring: of trees those of divided models do, which are no all-reduces. */
export const goAround = ({
  collectives: { algorithm },
  shard
}: Pick<DataParallelScenario, "collectives" | "shard">): boolean =>
  algorithm !== "direct" && (algorithm !== "tree" || shard !== undefined)

export const ignored = (scenario: DataParallelScenario, facts?: RunFacts): ReadonlyArray<string> => [
  ...deviceWarnings(
    scenario.device,
    "profile" in scenario.model ? "measured" : "stated",
    facts,
    // Where neither `costs` nor a profile has timed kernels, the device says which are looked up.
    isArchitecture(scenario.model) || (scenario.costs === undefined && "layers" in scenario.model)
  ),
  ...layerDeviceWarnings(scenario, facts),
  ...precisionWarnings(scenario),
  ...withRings(
    goAround(scenario),
    scenario.collectives,
    worldWarnings(scenario.world, scenario.collectives, scenario.shard?.within === "site")
  ),
  ...(goAround(scenario) || scenario.collectives.chunk === undefined
    ? []
    : [
        `collectives.chunk has no effect: it is of rings, and these are ${scenario.collectives.algorithm === "tree" ? "trees" : "direct"}`
      ]),
  ...(dataParallelNamed(scenario.algorithm.name).ignored?.(scenario.algorithm) ?? []),
  ...bucketViewWarnings(scenario),
  ...outputWarnings(scenario),
  ...contradictions(scenario),
  ...(scenario.kernels === "fused" || isArchitecture(scenario.model)
    ? []
    : ["kernels has no effect: the model's times are measured or stated"]),
  ...shardWarnings(scenario),
  ...shardCollectiveWarnings(scenario),
  ...clipWarnings(scenario),
  ...trainingWarnings(scenario),
  ...wireWarnings(scenario),
  // Checkpoints are copies on the host.
  ...(scenario.checkpoint === undefined ? hostMemoryWarnings(scenario.memory) : []),
  ...memoryWarnings(scenario),
  ...storageWarnings(scenario),
  ...slipWarnings("checkpoint.hostLink.latency", scenario.checkpoint?.hostLink?.latency, longerThanLinks),
  ...hostWarnings(scenario.host, hostNever),
  ...faultWarnings(scenario.faults, scenario.world, facts),
  ...(scenario.training === undefined
    ? []
    : [
        "training says what is learnt, what the optimizer keeps, and what parameters and gradients of a described model are in (precision), not how long it takes else, but for clipNorm, accumulate and the scaled loss of float16: `exec train` and `exec agree` go by it"
      ]),
  ...seedWarnings(scenario.seed, scenario.jitter > 0, "nothing is random while jitter is 0")
]

/** Whose program it is: this project's, or PyTorch's, in 16 bits throughout or under autocast. */
const programs = {
  fused: "this project's kernels",
  eager: "eager PyTorch in 16 bits",
  autocast: "eager PyTorch under autocast"
}

/** Fields that say of one run that it is two: each is gone by, and together they are of no program. */
const contradictions = (scenario: DataParallelScenario): ReadonlyArray<string> => {
  const { model, kernels, activations, shard } = scenario
  const warnings: Array<string> = []
  // Of a described model it is the kernels' own, where nobody says it.
  const by = activations !== undefined && !isArchitecture(model) ? keptBy(scenario) : activations?.by
  if (isArchitecture(model) && by !== undefined && by !== kernels)
    warnings.push(
      `activations.by "${by}" and kernels "${kernels}" are not of one program: memory is that of ${programs[by]}, times are those of ${programs[kernels]}`
    )
  if (shard === undefined) return warnings
  const { parameterDtype = "float32" } = shard
  const narrow = dtypeBits[parameterDtype] < dtypeBits.float32
  const unlike = narrow ? "autocast" : "eager"
  const fields = [
    ...(isArchitecture(model) && kernels === unlike ? ["kernels"] : []),
    ...(by === unlike ? ["activations.by"] : [])
  ]
  if (fields.length > 0)
    warnings.push(
      `shard.parameterDtype "${parameterDtype}" and ${fields.join(" and ")} "${unlike}" are not of one program: ${
        narrow
          ? 'that casts float32 parameters, and 16-bit ones are gathered ("eager" is of those)'
          : "that reads parameters in 16 bits, and float32 ones are gathered"
      }`
    )
  return warnings
}

/** A limit of memory that what is not counted may exceed all the same. */
const memoryWarnings = ({ model, activations, memory }: DataParallelScenario): ReadonlyArray<string> =>
  memory?.device === undefined || activations !== undefined || isArchitecture(model)
    ? []
    : [
        `memory.device is held against parameters, gradients and the optimizer's state alone: ${
          "profile" in model ? "a profile does" : "equal layers do"
        } not say what activations take (activations.of: the model's architecture, {gpt2}, {llama} or {mixtral})`
      ]

/** Where as many share storage as if all did. */
const storageWarnings = ({ checkpoint, world }: DataParallelScenario): ReadonlyArray<string> => {
  const by = checkpoint?.storage?.sharedBy ?? "job"
  const ranks = rankCount(world)
  if (by === "job") return []
  const sharers = { rank: [1], node: nodesOf(world).flat(), site: siteSizes(world) }[by]
  return greatest(sharers) === ranks
    ? [
        `checkpoint.storage.sharedBy "${by}" is "job" here: ${ranks === 1 ? "there is one rank" : `all ranks are ${by === "node" ? "on one node" : "in one site"}`}`
      ]
    : []
}

/** Buckets are DDP's, between ranks that have whole models; `fused` counts none. */
const bucketViewWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> => {
  const { activations, algorithm, shard, world } = scenario
  if (activations?.gradientAsBucketView !== true) return []
  const has = algorithm.name === "ddp" && shard === undefined && rankCount(world) !== 1
  if (has && keptBy(scenario) !== "fused") return []
  return ["activations.gradientAsBucketView has no effect: no memory of DDP's buckets is counted"]
}

/** This project's kernels turn logits into their gradient where they lie. */
const outputWarnings = (scenario: DataParallelScenario): ReadonlyArray<string> =>
  scenario.activations?.output === "dropped" && keptBy(scenario) === "fused"
    ? ["activations.output has no effect: fused kernels turn logits into their gradient where they lie"]
    : []

/** Real kernels are this project's, and compute again what the scenario says. */
const realActivationWarnings = ({ activations }: DataParallelScenario): ReadonlyArray<string> => {
  if (activations === undefined) return []
  const why = "has no effect: real kernels keep what they need"
  const view = [
    ...(activations.gradientAsBucketView ? [`activations.gradientAsBucketView ${why}`] : []),
    ...(activations.output === "dropped" ? [`activations.output ${why}`] : [])
  ]
  // What nobody said is not told as vain.
  if (activations.by === undefined) return view
  if (activations.recompute === "none") return [`activations.by ${why}`, ...view]
  return activations.by === "fused"
    ? view
    : [`activations.by ${why}, but for what is computed again`, ...view]
}

/** Gathered parameters that are narrower than layers read them: a real run's kernels have them wider. */
const gatheredWarnings = ({ shard, training }: DataParallelScenario): ReadonlyArray<string> => {
  const { parameterDtype } = shard ?? {}
  const read = training === undefined ? "float32" : layerDtypeOf(training)
  return parameterDtype === undefined || dtypeBits[parameterDtype] >= dtypeBits[read]
    ? []
    : [
        `shard.parameterDtype is what parameters travel in alone: layers read them in ${read} here (training.precision), so that more memory is held than sim tells`
      ]
}

export const ignoredByExec = (
  scenario: DataParallelScenario,
  alsoSimulated: boolean
): ReadonlyArray<string> => [
  ...(alsoSimulated ? [] : realActivationWarnings(scenario)),
  ...(scenario.kernels === "fused" || alsoSimulated
    ? []
    : ["kernels has no effect: real kernels are this project's"]),
  ...(scenario.costs === undefined
    ? []
    : ["costs have no effect on a real run, but that algorithms plan with them"]),
  ...(scenario.precision === usualPrecision ||
  (scenario.training !== undefined && scenario.precision === layerDtypeOf(scenario.training))
    ? []
    : [
        "precision has no effect on a real run, but that algorithms plan with it: kernels go by training.precision"
      ]),
  ...trainingWarnings(scenario),
  ...(alsoSimulated ? [] : gatheredWarnings(scenario)),
  ...(scenario.checkpoint?.storage === undefined
    ? []
    : ["checkpoint.storage has no effect: a real run writes to the disk that it is given"]),
  ...(scenario.checkpoint?.hostLink === undefined || alsoSimulated
    ? []
    : ["checkpoint.hostLink has no effect: copies are as fast as they are"]),
  ...realWarnings(scenario, alsoSimulated)
]
