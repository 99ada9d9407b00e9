// One scenario, from its settings to its result: resolves model, world and costs, plans the algorithm, simulates it and
// sums up the measured steps. The only place that knows all parts of the simulator.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import {
  planDataParallel,
  type PlannedAlgorithm,
  type PlanningFacts
} from "../core/algorithms/data-parallel/algorithm.ts"
import { profiledModel } from "../core/algorithms/data-parallel/training-model.ts"
import { InputError } from "../core/input-error.ts"
import type { MachineError, Program } from "../core/machine/machine.ts"
import type { Timeline } from "../core/machine/timeline.ts"
import type { Profile } from "../core/profile.ts"
import type { FaultSettings, Scenario } from "../core/scenario.ts"
import type { World } from "../core/world.ts"
import { aloneSeconds } from "./collectives.ts"
import { CollectiveTable } from "./cost/collective-table.ts"
import { makeCostModel } from "./cost/cost-model.ts"
import { devices, type Device } from "./cost/roofline.ts"
import { Faults, type Fault } from "./faults.ts"
import type { Loader } from "./load.ts"
import { resolveModel } from "./model.ts"
import { Network } from "./network.ts"
import type { RunResult } from "./result.ts"
import { simulate, type SimulationResult } from "./simulate.ts"
import { interchangeable } from "./symmetry.ts"
import { resolveWorld } from "./world.ts"

export interface RunOptions {
  readonly loader: Loader
  /** Keep the timeline and op logs. */
  readonly record?: boolean
  /** What every rank runs for that many steps in place of the scenario's own algorithm: a scheduler under test. */
  readonly program?: ((plan: ScenarioPlan, steps: number) => Program<void>) | undefined
  /** False: simulate every rank by itself, for a program that may do different things on like ranks. */
  readonly symmetric?: boolean
}

export interface ScenarioRun {
  readonly result: RunResult
  readonly timeline: Timeline | undefined
  readonly planned: PlannedAlgorithm
  readonly profile: Profile
  /** Ranks that were simulated; each stands for those like it. */
  readonly simulatedRanks: number
  /** The measured window on the timeline: from the end of the warm-up to the end of the last step. */
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly world: World
  readonly simulated: SimulationResult<void>
}

/** What the algorithm decides for this scenario, without running it. */
export interface ScenarioPlan {
  readonly planned: PlannedAlgorithm
  readonly profile: Profile
  readonly world: World
  readonly facts: PlanningFacts
}

/** Simulates a scenario. `file` is the scenario's path: files it names are relative to its folder. */
export const runScenario = (
  scenario: Scenario,
  file: string,
  options: RunOptions
): Effect.Effect<ScenarioRun, InputError | MachineError> =>
  Effect.gen(function* () {
    const plan = yield* prepare(scenario, file, options.loader)
    const { planned, profile, world, model, table, device } = plan
    const period = planned.periodSteps
    const steps = Math.ceil((scenario.steps ?? Math.max(leastSteps, period)) / period) * period
    const warmupSteps = planned.warmupSteps
    const simulated = yield* simulate({
      world,
      program:
        options.program?.(plan, warmupSteps + steps) ??
        planned.program(profiledModel(profile), warmupSteps + steps),
      costs: makeCostModel({ profile, hostTime: model.hostTime, ops: profile.ops, device }),
      network: scenario.network,
      collectives: { algorithm: scenario.collectives.algorithm, table },
      faults:
        scenario.faults.length === 0
          ? undefined
          : new Faults(yield* resolveFaults(scenario.faults, world, file)),
      jitter: scenario.jitter,
      seed: scenario.seed,
      capacityBytes: scenario.memory ?? {},
      symmetric: options.symmetric ?? true,
      record: options.record ?? false
    })
    const warnings = [...model.warnings]
    if (steps !== scenario.steps && scenario.steps !== undefined) {
      warnings.push(`steps: ${scenario.steps} rounded up to ${steps}, whole periods of ${period} steps`)
    }
    const summary = summarise(simulated, warmupSteps, steps)
    const estimates = model.estimated
      ? [
          {
            kernel: "layers",
            source: "roofline" as const,
            detail: `${profile.source}: peak rates, so a lower bound`
          },
          ...simulated.estimates
        ]
      : simulated.estimates
    return {
      result: {
        digest: simulated.digest,
        scenario: scenario.name,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        network: scenario.network,
        collectives: scenario.collectives.algorithm,
        steps,
        warmupSteps,
        ...summary.figures,
        makespanSeconds: simulated.makespanSeconds,
        peakBytes: {
          device: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.device)),
          host: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.host))
        },
        ops: simulated.ranks.reduce((sum, { ops, count }) => sum + ops * count, 0),
        links: simulated.links,
        estimates,
        warnings
      },
      timeline: simulated.timeline,
      planned,
      profile,
      simulatedRanks: simulated.ranks.length,
      fromSeconds: summary.fromSeconds,
      toSeconds: summary.toSeconds,
      world,
      simulated
    }
  })

/** Plans a scenario's algorithm without simulating it. */
export const planScenario = (
  scenario: Scenario,
  file: string,
  loader: Loader
): Effect.Effect<ScenarioPlan, InputError> => prepare(scenario, file, loader)

const leastSteps = 8

// Planning reckons with the world as stated, before anything goes wrong.
const alike = { rank: () => "", node: () => "", site: String }

const prepare = (scenario: Scenario, file: string, loader: Loader) =>
  Effect.gen(function* () {
    const world = yield* resolveWorld(scenario.world, file, loader)
    const chosen = deviceOf(scenario)
    const model = yield* resolveModel(scenario.model, world.size, chosen, file, loader)
    const { profile } = model
    const device = chosen ?? devices.find(({ name }) => name === profile.device)
    const measured = scenario.collectives.measured
    const table =
      measured === undefined
        ? undefined
        : new CollectiveTable((yield* loader.profile(file, "collectives.measured", measured)).collectives)
    const facts: PlanningFacts = {
      profile,
      phaseSeconds: (cost) => (model.hostTime === "span" ? cost.spanSeconds : cost.busySeconds),
      allReduceSeconds: aloneSeconds(
        new Network(world, interchangeable(world, alike)),
        "all_reduce",
        world.all,
        {
          algorithm: scenario.collectives.algorithm,
          table
        }
      )
    }
    const planned = planDataParallel(scenario.algorithm, facts)
    if (Result.isFailure(planned)) {
      const { field, value, accepted } = planned.failure
      return yield* new InputError({ file, field: `algorithm.${field}`, value: String(value), accepted })
    }
    return { world, model, profile, device, table, facts, planned: planned.success }
  })

const deviceOf = ({ device }: Scenario): Device | undefined => {
  if (device === undefined) return undefined
  if (typeof device === "string") return devices.find(({ name }) => name === device)
  return { name: device.name, flopsPerSecond: device.flops, memoryBytesPerSecond: device.memoryBandwidth }
}

const resolveFaults = (
  settings: ReadonlyArray<FaultSettings>,
  world: World,
  file: string
): Effect.Effect<ReadonlyArray<Fault>, InputError> =>
  Effect.forEach(settings, (fault, index) => {
    const fromSeconds = fault.from
    const untilSeconds = fault.for === undefined ? Infinity : fromSeconds + fault.for
    const refuse = (field: string, value: number, count: number, what: string) =>
      Effect.fail(
        new InputError({
          file,
          field: `faults[${index}].${field}`,
          value: String(value),
          accepted: `a ${what} of this world, 0 to ${count - 1}`
        })
      )
    if ("link" in fault) {
      const nodes = (world.nodeOf.at(-1) ?? 0) + 1
      const count = { intra: world.size, inter: nodes, wan: world.sites.length }[fault.link]
      if (fault.of !== undefined && !(fault.of >= 0 && fault.of < count)) {
        return refuse("of", fault.of, count, { intra: "rank", inter: "node", wan: "site" }[fault.link])
      }
      return Effect.succeed<Fault>({
        kind: "link",
        tier: fault.link,
        owner: fault.of,
        fromSeconds,
        untilSeconds,
        change: {
          ...(fault.bandwidth === undefined ? {} : { bytesPerSecond: fault.bandwidth }),
          ...(fault.latency === undefined ? {} : { latencySeconds: fault.latency })
        }
      })
    }
    const [field, rank, factor] =
      "outage" in fault
        ? (["outage", fault.outage, 0] as const)
        : (["straggler", fault.straggler, fault.speed] as const)
    if (!(rank >= 0 && rank < world.size)) return refuse(field, rank, world.size, "rank")
    return Effect.succeed<Fault>({ kind: "rank", rank, fromSeconds, untilSeconds, factor })
  })

/** Means over the measured steps, each simulated rank counted as often as it stands for. */
const summarise = <A>(simulated: SimulationResult<A>, warmupSteps: number, steps: number) => {
  let fromSeconds = 0
  let toSeconds = 0
  let busySeconds = 0
  let count = 0
  const last = warmupSteps + steps - 1
  for (const rank of simulated.ranks) {
    fromSeconds = Math.max(fromSeconds, rank.stepEndSeconds[warmupSteps - 1]!)
    toSeconds = Math.max(toSeconds, rank.stepEndSeconds[last]!)
    busySeconds += rank.count * (rank.stepBusySeconds[last]! - rank.stepBusySeconds[warmupSteps - 1]!)
    count += rank.count
  }
  const stepSeconds = (toSeconds - fromSeconds) / steps
  const computeSeconds = busySeconds / count / steps
  return {
    fromSeconds,
    toSeconds,
    figures: {
      stepSeconds,
      computeSeconds,
      computeUtilisation: stepSeconds > 0 ? computeSeconds / stepSeconds : 1,
      exposedCommunicationSeconds: Math.max(0, stepSeconds - computeSeconds)
    }
  }
}
