// A scenario of data-parallel training, resolved, planned and made ready for the simulator: its world, its model's profile, what
// collectives cost, and what the algorithm decides. Layers are ops that take what the profile says.
import { greatest } from "../../../core/extremes.ts"
import { leastCommonMultiple } from "../../../core/whole-numbers.ts"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { PlannedAlgorithm, PlanningFacts } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { planDataParallel } from "../../../core/algorithms/data-parallel/algorithms.ts"
import { blocksOf } from "../../../core/algorithms/data-parallel/blocks.ts"
import {
  blocksOfRuns,
  dividedProfile,
  type ShardPlan
} from "../../../core/algorithms/data-parallel/shard/plan.ts"
import { profiledModel, type HeldBytes } from "../../../core/algorithms/data-parallel/training-model.ts"
import type { CollectiveTable } from "../../../core/cost/collective-table.ts"
import { hostLinkSource, makeCostModel, type Costed } from "../../../core/cost/cost-model.ts"
import { deviceNamed, type Device } from "../../../core/cost/devices.ts"
import type { OpTable } from "../../../core/cost/op-table.ts"
import { InputError } from "../../../core/input-error.ts"
import { kernels } from "../../../core/kernels/catalogue.ts"
import { sharingLayers, type LayerGraph } from "../../../core/models/layer-graph.ts"
import { operand, type Operand } from "../../../core/kernels/kernel.ts"
import { dtypeBits, type Dtype } from "../../../core/machine/tensor.ts"
import type { Program } from "../../../core/machine/machine.ts"
import type { Profile } from "../../../core/profile.ts"
import { aloneSeconds, secondsAlone } from "../../../core/wire/alone.ts"
import { Network } from "../../../core/wire/network.ts"
import { asStated, composedAlike } from "../../../core/wire/symmetry.ts"
import type { World } from "../../../core/world.ts"
import type { Host, Prepared } from "../../family.ts"
import { pairWindowWarnings, unmeasuredFaultWarnings, withRings } from "../../ignored.ts"
import type { Loader } from "../../load.ts"
import type { SimulatedEnd } from "../../runnable.ts"
import { mostLayersOfRanks, mostScheduled, requireHeld } from "../../sizes.ts"
import { misfit, resolveModel, type ResolvedModel } from "../../model.ts"
import { isArchitecture, modelGraph } from "../../model-graph.ts"
import { opTableOf, resolveOpTable } from "../../op-table.ts"
import { resolveHost } from "../../host.ts"
import {
  limitedTableWarnings,
  linkOf,
  resolveCollectiveTable,
  resolveDevice,
  resolveFaults
} from "../../resolve.ts"
import { measuredSteps, type StepFigures } from "../../step-figures.ts"
import { resolveWorld } from "../../world.ts"
import { hostNever, type DataParallelScenario } from "./scenario.ts"
import { costWarnings, goAround, launchWarnings } from "./ignored.ts"
import { savedValues, savingProgram, type CheckpointTimes } from "./checkpoint-settings.ts"
import {
  keptBytes,
  recomputedEstimates,
  recomputedInGraph,
  recomputing,
  requireGathered
} from "./activation-settings.ts"
import { accumulationOf, lossScalingOf, statesKept } from "./training-settings.ts"
import { inPrecision, sentDtypes } from "./precision.ts"
import { vainInRun } from "./plan-warnings.ts"
import { partEstimates, resolveShards, shardPlanWarnings } from "./shard-settings.ts"
import { onBatch } from "./recorded-batch.ts"
import { tokensPerStep } from "./tokens.ts"

/** What the algorithm decides for this scenario, without running it. */
export interface ScenarioPlan {
  readonly planned: PlannedAlgorithm
  readonly profile: Profile
  readonly world: World
  /** How the model is divided; whole on every rank where absent. */
  readonly shard: ShardPlan | undefined
  /** What the algorithm planned with: the model as it sees it, of which `profile`'s layers may be parts. */
  readonly facts: PlanningFacts
}

/** The same with what costs come from. */
export interface PlannedScenario extends ScenarioPlan {
  /** What travels between those who average it, gradients or parameters, is rounded to it. */
  readonly wire: Dtype
  readonly model: ResolvedModel
  /** Whose peak rates estimate what nobody measured. */
  readonly device: Device | undefined
  readonly table: CollectiveTable | undefined
  /** Of what stays inside a node; where absent, `table` is. */
  readonly inside: CollectiveTable | undefined
  /** Timed kernels, for what is no layer of a profile. */
  readonly ops: OpTable | undefined
}

/** What steps come to, and what they do in that time. */
interface TrainingFigures extends StepFigures {
  /** Of one rank; where the scenario says how many they are. */
  readonly tokensPerStep?: number
  readonly tokensPerSecond?: number
}

/** A plan ready for the simulator. */
export interface PreparedDataParallel extends Prepared<void, TrainingFigures>, ScenarioPlan {
  /** Warm-up and measured ones. */
  readonly totalSteps: number
}

/** Who hold a model together, and who the same part. */
const groupsOf = (shard: ShardPlan | undefined) => {
  if (shard === undefined) return []
  const { shard: own, peers } = shard.placeOf(0)
  return [own, peers]
}

/** Averages of several parts take turns on the links that they share: ranks of a node are then not alike. */
const inTurns = ({ network }: DataParallelScenario, shard: ShardPlan | undefined): boolean =>
  network === "alpha-beta" &&
  shard !== undefined &&
  shard.ranks > 1 &&
  shard.placeOf(0).peers.ranks.length > 1

/** The collectives of a program: between those who hold the same part, if several, and inside a division. */
const sent = (shard: ShardPlan | undefined): ReadonlyArray<string> => {
  if (shard === undefined) return ["all_reduce"]
  const averages = shard.placeOf(0).peers.ranks.length > 1 ? ["all_reduce"] : []
  return [...averages, "all_gather", "reduce_scatter"]
}

/** Layers that share a weight: a described model says which; a profile does not, but where its layers are known to be that model's. */
const sharingOf = (
  { model, activations }: DataParallelScenario,
  names: ReadonlyArray<string>,
  known: LayerGraph | undefined
): ReadonlyArray<ReadonlyArray<number>> => {
  const described = isArchitecture(model) ? model : activations?.of
  const graph =
    known ?? (described === undefined || misfit(described) !== undefined ? undefined : modelGraph(described))
  return graph !== undefined && names.join() === graph.layers.map(({ name }) => name).join()
    ? sharingLayers(graph)
    : []
}

/** How the scenario's model, whose layers have these module paths, is divided; undefined where it is whole. */
const divided = (
  scenario: DataParallelScenario,
  world: World,
  names: ReadonlyArray<string>,
  file: string,
  graph: LayerGraph | undefined
): Effect.Effect<ShardPlan | undefined, InputError> =>
  Effect.gen(function* () {
    if (scenario.shard === undefined) return undefined
    const shard = yield* Effect.fromResult(
      resolveShards(scenario.shard, world, names, sharingOf(scenario, names, graph), file)
    )
    yield* requireGathered(scenario, names, shard, file)
    return shard
  })

/** The model's profile on the scenario's batch, with what is computed again; and what else costs come from. */
const asItRuns = (
  scenario: DataParallelScenario,
  { profile: recorded, estimates: known }: ResolvedModel,
  chosen: Device | undefined,
  file: string,
  loader: Loader
) =>
  Effect.gen(function* () {
    const device = chosen ?? deviceNamed(recorded.device)
    const own =
      recorded.ops.length > 0 && scenario.costs === undefined ? opTableOf(recorded, device) : undefined
    const ops = own ?? (yield* resolveOpTable(scenario.costs, device, "costs", file, loader))
    const { profile, estimates } = yield* onBatch(scenario, recorded, { device, ops }, file)
    return {
      profile: inPrecision(scenario, recomputing(scenario, profile)),
      device,
      ops,
      estimates: [...estimates, ...recomputedEstimates(scenario), ...known]
    }
  })

/**
 * Plans a scenario's algorithm without running it. `file` is its path: files it names are relative to its folder. `graph` is the
 * model's where a profile stands for it.
 */
export const planScenario = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader,
  graph?: LayerGraph
): Effect.Effect<PlannedScenario, InputError> =>
  Effect.gen(function* () {
    const world = yield* resolveWorld(scenario.world, file, loader)
    const chosen = resolveDevice(scenario.device)
    const described = yield* resolveOpTable(scenario.costs, chosen, "costs", file, loader)
    const model = yield* resolveModel(
      scenario.model,
      world.size,
      {
        device: chosen,
        ops: described,
        computeDtype: scenario.precision,
        kernelsOf: scenario.kernels,
        recompute: recomputedInGraph(scenario)
      },
      file,
      loader
    )
    const { profile, device, ops, estimates } = yield* asItRuns(scenario, model, chosen, file, loader)
    const layers = profile.layers.length
    const requireEachHeld = (why: string) =>
      requireHeld(
        { file, field: "world.ranks", value: world.size },
        layers,
        mostLayersOfRanks,
        `layers of each: ${why} every rank is simulated by itself`
      )
    if (scenario.jitter > 0) yield* requireEachHeld("with jitter")
    if ("period" in scenario.algorithm) {
      const period = { file, field: "algorithm.period", value: scenario.algorithm.period }
      yield* requireHeld(period, layers, mostScheduled, "layers")
    }
    const names = profile.layers.map(({ name }) => name)
    const shard = yield* divided(scenario, world, names, file, graph)
    const peers = shard?.placeOf(0).peers ?? world.all
    const tableOf = (of: "measured" | "inside") =>
      resolveCollectiveTable(scenario.collectives, of, sent(shard), file, loader)
    const table = yield* tableOf("measured")
    const inside = yield* tableOf("inside")
    const kinds = asStated(world).ranks
    const straggles = scenario.faults.some((fault) => "straggler" in fault)
    if (
      shard !== undefined &&
      (straggles || groupsOf(shard).some((one) => !composedAlike(kinds, one.alike ?? [])))
    )
      yield* requireEachHeld("where those who hold a model together are not alike,")
    const network = new Network(world, asStated(world))
    const { algorithm, handshake, chunk: chunkBytes } = scenario.collectives
    const links = { algorithm, table, inside, handshake, chunkBytes }
    const { kept, wire } = sentDtypes(scenario, profile, shard)
    const facts: PlanningFacts = {
      ranks: peers.ranks.length,
      profile: shard === undefined ? profile : dividedProfile(profile, shard),
      blocks: shard && blocksOfRuns(shard, blocksOf(names)),
      phaseSeconds: (cost) => (model.hostTime === "span" ? cost.spanSeconds : cost.busySeconds),
      allReduceSeconds: aloneSeconds(
        network,
        "all_reduce",
        peers,
        links,
        // Sums are in what is kept, whatever they are sent as.
        Math.max(1, dtypeBits[kept] / dtypeBits[wire])
      ),
      rehearsal: shard && {
        world,
        build: profiledModel(profile, { shard, accumulation: accumulationOf(scenario.training) }),
        seconds: secondsAlone(
          network,
          links,
          makeCostModel({
            profile,
            hostTime: model.hostTime,
            sources: ops === undefined ? [] : [ops],
            device,
            host: "none"
          }).seconds
        )
      }
    }
    const planned = planDataParallel(scenario.algorithm, facts)
    if (Result.isFailure(planned)) {
      const { field, value, accepted } = planned.failure
      return yield* new InputError({ file, field: `algorithm.${field}`, value: String(value), accepted })
    }
    if (planned.success.ranksDiffer === true) yield* requireEachHeld(`with ${scenario.algorithm.name}`)
    if (inTurns(scenario, shard)) yield* requireEachHeld("where parts are averaged one after another,")
    return {
      world,
      shard,
      wire,
      model: { ...model, estimates: [...estimates, ...partEstimates(scenario, shard)] },
      profile,
      device,
      table,
      inside,
      ops,
      facts,
      planned: planned.success
    }
  })

const copyToHost = (tensor: Operand): Costed => ({
  kernel: kernels.d2h,
  attributes: {},
  reads: [tensor],
  writes: [tensor]
})

export type CheckpointDetails = CheckpointTimes & { readonly everySteps: number }

const asksForMemory = ({ shard, activations, memory }: DataParallelScenario): boolean =>
  shard !== undefined || activations !== undefined || memory?.device !== undefined

export type MemoryDetails = ReturnType<typeof memoryOf>

/**
 * What the fullest rank holds at a time, by what it is; whoever does not fit does not get here. Activations are among the parts
 * where they are known.
 */
const memoryOf = (
  { parameters, copies, gradients, optimizer, activations, buffers }: HeldBytes,
  activationsKnown: boolean,
  { ranks }: SimulatedEnd,
  capacityBytes: number | undefined
) => {
  const heldBytes = greatest(ranks.map(({ peakBytes }) => peakBytes.device))
  const known = parameters + copies + gradients + optimizer + activations + buffers
  return {
    heldBytes,
    ...(capacityBytes === undefined ? {} : { capacityBytes, fits: heldBytes <= capacityBytes }),
    parts: {
      parameters,
      copies,
      gradients,
      optimizer,
      ...(activationsKnown ? { activations } : {}),
      buffers,
      // What the algorithm keeps across divisions, and scalars.
      outer: heldBytes - known
    }
  }
}

const leastSteps = 8

/** Steps after which the schedule and checkpoints repeat. */
const roundOf = ({ checkpoint }: DataParallelScenario, { periodSteps }: PlannedAlgorithm): number =>
  checkpoint === undefined ? periodSteps : leastCommonMultiple(periodSteps, checkpoint.every)

/**
 * Warm-up and measured steps: whole periods of the schedule, so that figures are of its steady state; with checkpoints also as many
 * as there are between them, after one that may still be written.
 */
export const stepsOf = (scenario: DataParallelScenario, planned: PlannedAlgorithm) => {
  const { steps, checkpoint } = scenario
  const { periodSteps, warmupSteps } = planned
  const round = roundOf(scenario, planned)
  const wholePeriods = (count: number) => Math.ceil(count / periodSteps) * periodSteps
  return {
    warmupSteps: checkpoint === undefined ? warmupSteps : wholePeriods(warmupSteps + checkpoint.every),
    steps: Math.ceil((steps ?? Math.max(leastSteps, periodSteps)) / round) * round
  }
}

export const prepare = (
  scenario: DataParallelScenario,
  file: string,
  { loader }: Host
): Effect.Effect<PreparedDataParallel, InputError> =>
  Effect.gen(function* () {
    const plan = yield* planScenario(scenario, file, loader)
    const { planned, profile, world, shard, facts, model, table, inside, device, ops } = plan
    const { warmupSteps, steps } = stepsOf(scenario, planned)
    const { network, collectives, jitter, seed, memory, checkpoint } = scenario
    if (checkpoint !== undefined) {
      const every = { file, field: "checkpoint.every", value: checkpoint.every }
      yield* requireHeld(every, (profile.layers.length * steps) / checkpoint.every, mostScheduled, "layers")
    }
    const timed =
      scenario.costs === undefined ? undefined : yield* loader.profile(file, "costs", scenario.costs)
    const kept = yield* keptBytes(scenario, profile, planned, shard, world.size, file)
    let held: HeldBytes | undefined
    const host = yield* resolveHost(scenario.host, profile.host ?? timed?.host, file, loader, hostNever)
    const costs = makeCostModel({
      profile,
      hostTime: model.hostTime,
      gapsAreHost: !model.sharesDevice,
      sources: [
        ...(checkpoint?.hostLink === undefined ? [] : [hostLinkSource(linkOf(checkpoint.hostLink))]),
        ...(ops === undefined ? [] : [ops])
      ],
      device,
      host
    })
    const saving = (program: Program<void>): Program<void> =>
      checkpoint === undefined
        ? program
        : savingProgram(program, checkpoint, world, {
            copySeconds: ({ shape, dtype }) => costs.cost(copyToHost(operand(shape, dtype))).seconds,
            onWritten: (times) => (written = times)
          })
    let written: CheckpointTimes | undefined
    return {
      planned,
      profile,
      world,
      shard,
      facts,
      totalSteps: warmupSteps + steps,
      simulable: {
        world,
        program: saving(
          planned.program(
            profiledModel(profile, {
              ...(kept ?? {
                activationBytes: model.activationBytes,
                layersShare: !isArchitecture(scenario.model)
              }),
              onHeld: (bytes) => (held ??= bytes),
              shard,
              clipNorm: scenario.training?.clipNorm,
              lossScaling: lossScalingOf(scenario.training),
              states: statesKept(scenario.training),
              accumulation: accumulationOf(scenario.training)
            }),
            warmupSteps + steps
          )
        ),
        ...(checkpoint === undefined ? {} : { source: savedValues }),
        costs,
        network,
        collectives: {
          algorithm: collectives.algorithm,
          table,
          inside,
          slowdown: collectives.slowdown,
          slowdownInside: collectives.slowdownInside,
          waitSeconds: collectives.wait,
          handshake: collectives.handshake,
          chunkBytes: collectives.chunk
        },
        faults: yield* resolveFaults(scenario.faults, world, file, scenario.world.links),
        jitter,
        seed,
        capacityBytes: memory,
        steps: warmupSteps + steps,
        symmetric: planned.ranksDiffer !== true && !inTurns(scenario, shard),
        groups: groupsOf(shard)
      },
      summarise: (ended) => {
        const { figures, fromSeconds, toSeconds } = measuredSteps(ended, warmupSteps, steps)
        const rounded =
          scenario.steps === undefined || steps === scenario.steps
            ? []
            : [
                `steps: ${scenario.steps} rounded up to ${steps}, whole periods of ${planned.periodSteps} steps${checkpoint === undefined ? "" : ` and whole stretches between checkpoints`}`
              ]
        const details = {
          ...(held === undefined || !asksForMemory(scenario)
            ? {}
            : {
                memory: memoryOf(
                  held,
                  kept !== undefined || isArchitecture(scenario.model),
                  ended,
                  memory?.device
                )
              }),
          ...(checkpoint === undefined || written === undefined
            ? {}
            : { checkpoint: { everySteps: checkpoint.every, ...written } })
        }
        const tokens = tokensPerStep(scenario)
        return Effect.succeed({
          figures:
            tokens === undefined
              ? figures
              : { ...figures, tokensPerStep: tokens, tokensPerSecond: tokens / figures.stepSeconds },
          fromSeconds,
          toSeconds,
          steps,
          warmupSteps,
          network,
          collectives: collectives.algorithm,
          estimates: model.estimates,
          ...(Object.keys(details).length === 0 ? {} : { details }),
          warnings: [
            ...model.warnings,
            ...rounded,
            ...unmeasuredFaultWarnings(scenario.faults, { fromSeconds, toSeconds }),
            ...limitedTableWarnings(table, inside, world),
            ...withRings(goAround(scenario), collectives, pairWindowWarnings(world)),
            ...vainInRun(scenario, plan, ended, costs),
            ...launchWarnings(scenario, costs),
            ...costWarnings(
              scenario,
              costs,
              scenario.host === undefined && profile.host === undefined && timed?.host !== undefined
            ),
            ...(shard === undefined
              ? []
              : shardPlanWarnings(
                  shard,
                  profile.layers.map(({ name }) => name)
                ))
          ]
        })
      }
    }
  })
