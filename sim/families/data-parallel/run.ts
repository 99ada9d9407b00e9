// One scenario of data-parallel training, planned, simulated, and its measured steps summed up.
import * as Effect from "effect/Effect"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { profiledModel } from "../../../core/algorithms/data-parallel/training-model.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { MachineError, Program } from "../../../core/machine/machine.ts"
import type { Profile } from "../../../core/profile.ts"
import type { DataParallelScenario } from "../../../scenarios/families/data-parallel/scenario.ts"
import type { CollectiveAlgorithm } from "../../../core/wire/network.ts"
import type { World } from "../../../core/world.ts"
import { makeCostModel } from "../../../core/cost/cost-model.ts"
import type { FamilyRun, RunOptions } from "../../run.ts"
import { Faults } from "../../faults.ts"
import { planScenario, type ScenarioPlan } from "../../../scenarios/families/data-parallel/prepare.ts"
import { resolveFaults } from "../../../scenarios/resolve.ts"
import type { RunResult } from "../../../scenarios/result.ts"
import { simulate, type SimulationResult } from "../../simulate.ts"
import { measuredSteps, type StepFigures } from "../../step-figures.ts"

/** `sim run --json` of data-parallel training. */
export interface DataParallelResult extends RunResult, StepFigures {
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: CollectiveAlgorithm
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

/** Simulates a scenario. `file` is the scenario's path: files it names are relative to its folder. */
export const runDataParallel = (
  scenario: DataParallelScenario,
  file: string,
  options: DataParallelOptions
): Effect.Effect<DataParallelRun, InputError | MachineError> =>
  Effect.gen(function* () {
    const plan = yield* planScenario(scenario, file, options.loader)
    const { planned, profile, world, model, table, device, ops } = plan
    const period = planned.periodSteps
    const steps = Math.ceil((scenario.steps ?? Math.max(leastSteps, period)) / period) * period
    const warmupSteps = planned.warmupSteps
    const simulated = yield* simulate({
      world,
      program:
        options.program?.(plan, warmupSteps + steps) ??
        planned.program(profiledModel(profile), warmupSteps + steps),
      costs: makeCostModel({
        profile,
        hostTime: model.hostTime,
        sources: ops === undefined ? [] : [ops],
        device
      }),
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
    const estimates = [...model.estimates, ...simulated.estimates]
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

const leastSteps = 8
