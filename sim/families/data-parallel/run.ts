// One scenario of data-parallel training, from its settings to its result: resolves model, world and costs, plans the
// algorithm, simulates it and sums up the measured steps.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import {
  planDataParallel,
  type PlannedAlgorithm,
  type PlanningFacts
} from "../../../core/algorithms/data-parallel/algorithm.ts"
import { profiledModel } from "../../../core/algorithms/data-parallel/training-model.ts"
import { InputError } from "../../../core/input-error.ts"
import type { MachineError, Program } from "../../../core/machine/machine.ts"
import type { Profile } from "../../../core/profile.ts"
import type { DataParallelScenario } from "../../../core/algorithms/data-parallel/scenario.ts"
import type { World } from "../../../core/world.ts"
import { aloneSeconds } from "../../collectives.ts"
import { makeCostModel } from "../../cost/cost-model.ts"
import { devices } from "../../cost/roofline.ts"
import type { FamilyRun, RunOptions } from "../../family.ts"
import { Faults } from "../../faults.ts"
import type { Loader } from "../../load.ts"
import { resolveModel } from "../../model.ts"
import { Network } from "../../network.ts"
import { resolveCollectiveTable, resolveDevice, resolveFaults } from "../../resolve.ts"
import type { RunResult } from "../../result.ts"
import { simulate, type SimulationResult } from "../../simulate.ts"
import { interchangeable } from "../../symmetry.ts"
import { measuredSteps, type StepFigures } from "../../step-figures.ts"
import { resolveWorld } from "../../world.ts"

/** `sim run --json` of data-parallel training. */
export interface DataParallelResult extends RunResult, StepFigures {
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: "ring" | "tree" | "hierarchical"
  readonly steps: number
  readonly warmupSteps: number
}

export interface DataParallelOptions extends RunOptions {
  /** What every rank runs for that many steps in place of the scenario's own algorithm: a scheduler under test. */
  readonly program?: ((plan: ScenarioPlan, steps: number) => Program<void>) | undefined
  /** False: simulate every rank by itself, for a program that may do different things on like ranks. */
  readonly symmetric?: boolean
}

export interface DataParallelRun extends FamilyRun {
  readonly result: DataParallelResult
  readonly planned: PlannedAlgorithm
  readonly profile: Profile
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
export const runDataParallel = (
  scenario: DataParallelScenario,
  file: string,
  options: DataParallelOptions
): Effect.Effect<DataParallelRun, InputError | MachineError> =>
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
    const summary = measuredSteps(simulated, warmupSteps, steps)
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
        task: scenario.task,
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
      fromSeconds: summary.fromSeconds,
      toSeconds: summary.toSeconds,
      world,
      simulated
    }
  })

/** Plans a scenario's algorithm without simulating it. */
export const planScenario = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader
): Effect.Effect<ScenarioPlan, InputError> => prepare(scenario, file, loader)

const leastSteps = 8

// Planning reckons with the world as stated, before anything goes wrong.
const alike = { rank: () => "", node: () => "", site: String }

const prepare = (scenario: DataParallelScenario, file: string, loader: Loader) =>
  Effect.gen(function* () {
    const world = yield* resolveWorld(scenario.world, file, loader)
    const chosen = resolveDevice(scenario.device)
    const model = yield* resolveModel(scenario.model, world.size, chosen, file, loader)
    const { profile } = model
    const device = chosen ?? devices.find(({ name }) => name === profile.device)
    const table = yield* resolveCollectiveTable(scenario.collectives.measured, "all_reduce", file, loader)
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
