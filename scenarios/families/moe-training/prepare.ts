// A scenario of MoE training, resolved: world, model, costs and routing, before anything is planned or run.
import * as Effect from "effect/Effect"
import { secondsAlone, waitBeside } from "../../../core/wire/alone.ts"
import { Network } from "../../../core/wire/network.ts"
import { asStated } from "../../../core/wire/symmetry.ts"
import { fitLine, secondsAt, type FittedCost } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import { planWith, type PlannedMoe } from "../../../core/algorithms/moe-training/planning.ts"
import { moeGroups } from "../../../core/algorithms/moe-training/groups.ts"
import {
  capacityOf,
  kvHeadsOf,
  ModelSizeError,
  type MoeModel
} from "../../../core/algorithms/moe-training/model.ts"
import { layerCosts } from "../../../core/algorithms/moe-training/rehearsal.ts"
import type { MoeTrainingSettings } from "../../../core/algorithms/moe-training/algorithms.ts"
import { ignored } from "./ignored.ts"
import { planWarnings } from "./plan-warnings.ts"
import { hostNever, type MoeTrainingScenario } from "./scenario.ts"
import { InputError } from "../../../core/input-error.ts"
import type { CollectiveCost, OpCost, Profile } from "../../../core/profile.ts"
import type { World } from "../../../core/world.ts"
import type { CollectiveOptions } from "../../../core/wire/legs.ts"
import { CollectiveTable } from "../../../core/cost/collective-table.ts"
import { makeCostModel, type CostModel } from "../../../core/cost/cost-model.ts"
import { deviceNamed } from "../../../core/cost/devices.ts"
import { dtypeOfRow } from "../../../core/cost/measures.ts"
import type { Host } from "../../family.ts"
import { pairWindowWarnings } from "../../ignored.ts"
import type { Loader } from "../../load.ts"
import { mostExperts, requireHeld } from "../../sizes.ts"
import { opTableOf } from "../../op-table.ts"
import { resolveHost } from "../../host.ts"
import { resolveDevice } from "../../resolve.ts"
import { resolveWorld } from "../../world.ts"
import { macsOf, productLine, rowsOfLine, type CollectiveOp } from "./costs.ts"
import { pipelineOracle } from "./oracle.ts"

/** What a scenario says, resolved and planned. */
export interface PlannedScenario {
  readonly world: World
  readonly model: MoeModel
  readonly costs: CostModel
  readonly collectives: CollectiveOptions
  readonly planned: PlannedMoe
  /** Lines that costs come from, with their errors. */
  readonly fits: ReadonlyArray<FittedCost>
  readonly warnings: ReadonlyArray<string>
}

const modelOf = (scenario: MoeTrainingScenario, nodes: number): MoeModel => {
  const { model } = scenario
  return {
    ...model,
    kvHeads: model.kvHeads ?? model.heads,
    experts: model.experts ?? nodes,
    learningRate: scenario.learningRate,
    seed: scenario.seed
  }
}

/** Heads that more ranks of a node hold than one: the copies' gradients are not summed inside the node. */
const copyWarnings = (model: MoeModel, perNode: number): ReadonlyArray<string> => {
  const held = kvHeadsOf(model, perNode)
  return held * perNode > model.kvHeads
    ? [
        `the ${model.kvHeads} heads of keys and values are held as ${held} on each of a node's ${perNode} ranks; summing the copies' gradients inside the node is left out`
      ]
    : []
}

export const planScenario = (
  scenario: MoeTrainingScenario,
  file: string,
  { loader, simulator }: Host
): Effect.Effect<PlannedScenario, InputError> =>
  Effect.gen(function* () {
    const world = yield* resolveWorld(scenario.world, file, loader)
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field, value: String(value), accepted })
    const perNodes = new Set(world.sites.flatMap(({ nodes }) => nodes))
    if (perNodes.size > 1)
      return yield* refuse(
        "world.ranksPerNode",
        [...perNodes].join(", "),
        "one number for all nodes: the ranks of a node hold its experts in as many parts, and each exchanges with the rank in its place on every other node"
      )
    const groups = moeGroups(world, 0)
    const model = modelOf(scenario, groups.nodes)
    yield* requireHeld(
      { file, field: "model.layers", value: model.layers },
      model.experts,
      mostExperts,
      "experts of each"
    )
    const tokenChoice = model.gate !== "expert-choice" && model.gate !== "soft-moe"
    if (model.capacityFactor === "dropless" && !tokenChoice) {
      return yield* refuse(
        "model.capacityFactor",
        "dropless",
        `a number: with the gate ${model.gate} rows are fixed`
      )
    }
    const fits: Array<FittedCost> = []
    const costs = yield* resolveProducts(scenario, file, loader, fits)
    const { between, inside } = yield* resolveCollectives(scenario, file, loader, world, fits)
    const rows = [...between, ...inside]
    const collectives: CollectiveOptions = {
      algorithm: "ring",
      table: rows.length === 0 ? undefined : new CollectiveTable(rows),
      // What all ranks of a lone node sum is no message between nodes.
      inside: rows.length === 0 ? undefined : new CollectiveTable(inside),
      portShare: scenario.costs.portShare,
      slowdown: scenario.costs.slowdown,
      waitSeconds: scenario.costs.wait
    }
    const { algorithm } = scenario
    if ("planner" in algorithm && algorithm.planner === "simulation" && simulator === undefined) {
      return yield* refuse(
        "algorithm.planner",
        "simulation",
        "cases or lanes, or the degrees that `sim schedule` finds as forwardDegree and backwardDegree: nothing simulates here"
      )
    }
    const { planned, vain } = yield* Effect.try({
      try: () => {
        const network = new Network(world, asStated(world))
        const known = layerCosts(
          model,
          world,
          secondsAlone(network, collectives, costs.seconds),
          waitBeside(network, collectives)
        )
        const oracle =
          simulator &&
          pipelineOracle(simulator, { model, world, costs, collectives, network: scenario.network })
        const plan = (settings: MoeTrainingSettings) => planWith(settings, model, known, oracle)
        const planned = plan(algorithm)
        return { planned, vain: planWarnings(planned, plan, ignored(scenario)) }
      },
      catch: (cause) => {
        if (cause instanceof ModelSizeError)
          return refuse(`model.${cause.field}`, cause.value, cause.accepted)
        throw cause
      }
    })
    if (model.gate === "expert-choice" && model.capacityFactor !== "dropless") {
      const { shares } = planned.costs
      const { forwardDegrees, backwardDegrees } = planned.plan
      const { tokens } = shares
      // Rows as they are padded, each of which is a token of its own.
      if (
        forwardDegrees.some((degree, l) => capacityOf(model, shares, degree, backwardDegrees[l]!) > tokens)
      ) {
        return yield* refuse(
          "model.capacityFactor",
          model.capacityFactor,
          `less: an expert cannot choose more than a rank's ${tokens} tokens`
        )
      }
    }
    return {
      world,
      model,
      costs,
      collectives,
      planned,
      fits,
      warnings: [...vain, ...copyWarnings(model, moeGroups(world, 0).perNode), ...pairWindowWarnings(world)]
    }
  })

const resolveProducts = (
  scenario: MoeTrainingScenario,
  file: string,
  loader: Loader,
  fits: Array<FittedCost>
): Effect.Effect<CostModel, InputError> =>
  Effect.gen(function* () {
    const { products } = scenario.costs
    const stated = resolveDevice(scenario.device)
    if (!("profile" in products)) {
      const line = lineOf("products", products, "input")
      fits.push(line)
      return makeCostModel({
        sources: [productLine(line)],
        device: stated ?? deviceNamed("NVIDIA H200"),
        host: yield* resolveHost(scenario.host, undefined, file, loader, hostNever(scenario))
      })
    }
    const profile = yield* loader.profile(file, "costs.products.profile", products.profile)
    const isProduct = ({ attributes }: OpCost): boolean =>
      ["m", "k", "n"].every((key) => attributes[key] !== undefined)
    const names = [...new Set(profile.ops.filter(isProduct).map(({ op }) => op))]
    const chosen = products.op ?? names[0]
    const rows = profile.ops.filter((row) => isProduct(row) && row.op === chosen)
    if (chosen === undefined || rows.length < 2) {
      return yield* new InputError({
        file,
        field: `costs.products.${products.op === undefined ? "profile" : "op"}`,
        value: products.op ?? products.profile,
        accepted: `an op that the profile has with m, k and n: ${names.join(", ") || "it has none"}`
      })
    }
    // Other kernels than products are looked up in the same profile.
    const others = profile.ops.filter((row) => !isProduct(row))
    const kept = products.op === undefined ? profile.ops : [...rows, ...others]
    const table = opTableOf({ ...profile, ops: kept }, stated)
    const line = fitLine(
      stated === undefined || stated.name === profile.device
        ? chosen
        : `${chosen} carried over to ${stated.name}`,
      { unit: "MAC", dtype: dtypeOfRow(rows[0]!), scope: "input" },
      rows.map((row) => ({ size: macsOf(row.attributes), seconds: table.secondsOf(row) })),
      // Sizes span orders of magnitude; the small ones would not count otherwise.
      "relative"
    )
    fits.push(line)
    const sources = products.method === "line" ? [productLine(line), table] : [table]
    const host = yield* resolveHost(scenario.host, profile.host, file, loader, hostNever(scenario))
    return makeCostModel({ sources, device: stated ?? table.measuredOn, host })
  })

const lineOf = (
  op: string,
  line: Pick<FittedCost, "unit" | "dtype"> & { readonly fixed: number; readonly perUnit: number },
  scope: FittedCost["scope"]
): FittedCost => ({
  op,
  unit: line.unit,
  dtype: line.dtype,
  scope,
  fixedSeconds: line.fixed,
  secondsPerUnit: line.perUnit,
  meanError: 0,
  maxError: 0,
  points: 0
})

const tiers = [
  ["between", ["all_to_all", "all_reduce"]],
  // An all-reduce stays inside where there is one node.
  ["inside", ["all_gather", "reduce_scatter", "all_reduce"]]
] as const

type CollectiveSettings = MoeTrainingScenario["costs"]["between" | "inside"]
type StatedLines = Exclude<CollectiveSettings, { readonly profile: unknown }>
type MeasuredTable = Extract<CollectiveSettings, { readonly profile: unknown }>

/** Where collectives are resolved: between nodes or inside them, and what is asked of it there. */
interface Place {
  readonly file: string
  readonly tier: "between" | "inside"
  /** Collectives that go there. */
  readonly ops: ReadonlyArray<string>
  /** Ranks of one, and of a node. */
  readonly ranks: number
  readonly perNode: number
  /** Adds what was fitted or stated. */
  readonly fits: Array<FittedCost>
}

const resolveCollectives = (
  scenario: MoeTrainingScenario,
  file: string,
  loader: Loader,
  world: World,
  fits: Array<FittedCost>
): Effect.Effect<Readonly<Record<"between" | "inside", ReadonlyArray<CollectiveCost>>>, InputError> =>
  Effect.gen(function* () {
    const { nodes, perNode } = moeGroups(world, 0)
    const [between, inside] = yield* Effect.forEach(tiers, ([tier, ops]) => {
      const settings = scenario.costs[tier]
      const place: Place = { file, tier, ops, ranks: tier === "between" ? nodes : perNode, perNode, fits }
      return "profile" in settings ? measuredRows(settings, place, loader) : statedRows(settings, place)
    })
    return { between: between!, inside: inside! }
  })

const refusedAt = ({ file, tier }: Place, field: string, value: string, accepted: string): InputError =>
  new InputError({ file, field: `costs.${tier}.${field}`, value, accepted })

/** Rows of lines that the scenario states. */
const statedRows = (
  lines: StatedLines,
  place: Place
): Effect.Effect<ReadonlyArray<CollectiveCost>, InputError> =>
  Effect.gen(function* () {
    const { tier, ops, ranks, perNode, fits } = place
    const rows: Array<CollectiveCost> = []
    for (const [op, given] of Object.entries(lines)) {
      if (given === undefined) continue
      if (!ops.includes(op))
        return yield* refusedAt(place, op, op, `${ops.join(" or ")}: the others are not used ${tier} nodes`)
      const { scope } = given
      if (scope === "gathered" && (tier === "between" || op === "all_reduce"))
        return yield* refusedAt(place, `${op}.scope`, scope, "input or node: nothing is gathered")
      const line = lineOf(op, given, scope)
      fits.push(line)
      rows.push(...rowsOfLine(op as CollectiveOp, line, ranks, perNode))
    }
    return rows
  })

/** A profile's rows on one kind of links, as they are or on lines through them. */
const measuredRows = (
  settings: MeasuredTable,
  place: Place,
  loader: Loader
): Effect.Effect<ReadonlyArray<CollectiveCost>, InputError> =>
  Effect.gen(function* () {
    const { file, tier, ops } = place
    const profile: Profile = yield* loader.profile(file, `costs.${tier}.profile`, settings.profile)
    const own = profile.collectives.filter((row) => ops.includes(row.op))
    const links = [...new Set(own.map((row) => row.link))]
    const link = settings.link ?? (links.length === 1 ? links[0]! : "unshaped")
    if (!links.includes(link) && (settings.link !== undefined || links.length > 0))
      return yield* refusedAt(
        place,
        "link",
        settings.link ?? `not given, which is ${link} where there are several`,
        `a kind of links that ${settings.profile} has ${ops.join(" or ")} of: ${links.join(", ") || "none"}`
      )
    const groups = ops.flatMap((op) => {
      // What limited them is in their times, so that nothing else need: the table counts them as unshaped.
      const rows = own
        .filter((row) => row.op === op && row.link === link)
        .map((row) => ({ ...row, link: "unshaped" }))
      return [...Map.groupBy(rows, (row) => row.ranks).values()]
    })
    return (yield* Effect.forEach(groups, (points) => rowsOfPoints(points, settings, place))).flat()
  })

/** Measured times of one collective among so many ranks: themselves, or two points of the line through them. */
const rowsOfPoints = (
  points: ReadonlyArray<CollectiveCost>,
  { method, profile }: MeasuredTable,
  place: Place
): Effect.Effect<ReadonlyArray<CollectiveCost>, InputError> =>
  Effect.gen(function* () {
    const { op, ranks } = points[0]!
    // A message that the profile has of one size says nothing of a line, and all of itself.
    if (new Set(points.map((row) => row.sizeBytes)).size === 1) {
      if (method === "table") return points
      return yield* refusedAt(
        place,
        "method",
        method,
        `table: ${profile} has ${op} of ${ranks} ranks in one size only, and a line needs two`
      )
    }
    // Sizes are of what one rank puts in; of a reduce-scatter, of what it gets.
    const line = fitLine(
      `${op}, ${ranks} ranks`,
      { unit: "bytes", dtype: "float32", scope: "input" },
      points.map((row) => ({ size: row.sizeBytes, seconds: row.medianSeconds })),
      "relative"
    )
    place.fits.push(line)
    if (method === "table") return points
    return [0, 2 ** 40].map((sizeBytes) => ({
      op,
      ranks,
      sizeBytes,
      medianSeconds: secondsAt(line, sizeBytes),
      link: "unshaped"
    }))
  })
