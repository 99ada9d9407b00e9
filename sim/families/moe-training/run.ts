// One scenario of MoE training, from its settings to its result.
import * as Effect from "effect/Effect"
import { moeTraining } from "../../../core/algorithms/moe-training/program.ts"
import type { MoeTrainingScenario } from "../../../scenarios/families/moe-training/scenario.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { MachineError } from "../../../core/machine/machine.ts"
import { Faults } from "../../faults.ts"
import type { FamilyRun, RunOptions } from "../../run.ts"
import type { Told } from "../../../scenarios/family.ts"
import { diagnosisLines } from "../../../scenarios/families/moe-training/family.ts"
import { pipelineOracle } from "./oracle.ts"
import { resolveFaults } from "../../../scenarios/resolve.ts"
import type { RunResult } from "../../../scenarios/result.ts"
import { simulate } from "../../simulate.ts"
import { measuredSteps, type StepFigures } from "../../step-figures.ts"
import { diagnose } from "../../../scenarios/families/moe-training/diagnosis.ts"
import { prepareMoe, type PreparedMoe } from "../../../scenarios/families/moe-training/prepare.ts"
import { drawn, recorded, routingSource } from "../../../scenarios/families/moe-training/routing-source.ts"

/** `sim run --json` of MoE training; `details` has the plan, the fits and a diagnosis of each pass. */
export interface MoeTrainingResult extends RunResult, StepFigures {
  readonly tokensPerSecond: number
  /** What the planner reckoned a step takes. */
  readonly predictedSeconds: number
  readonly expertImbalance: number
}

export interface MoeTrainingRun extends FamilyRun {
  readonly result: MoeTrainingResult
  readonly prepared: PreparedMoe
}

const warmupSteps = 1

export const runMoeTraining = (
  scenario: MoeTrainingScenario,
  file: string,
  options: RunOptions
): Effect.Effect<MoeTrainingRun, InputError | MachineError> =>
  Effect.gen(function* () {
    const prepared = yield* prepareMoe(scenario, file, options.loader, pipelineOracle)
    const { world, model, costs, collectives, planned } = prepared
    const { steps } = scenario
    const dropless = model.capacityFactor === "dropless"
    const sizes = {
      ranks: world.size,
      tokens: planned.costs.shares.tokens,
      experts: model.experts,
      topK: model.topK
    }
    const routing = scenario.routing ?? { skew: 0 }
    const choices =
      "trace" in routing
        ? yield* recorded(file, routing.trace, sizes)
        : drawn(sizes, routing.skew, scenario.seed)
    const source = routingSource(model.layers, choices, model.experts)
    const faulty = scenario.faults.length > 0
    const simulated = yield* simulate({
      world,
      program: moeTraining({ model, plan: planned.plan, steps: warmupSteps + steps }),
      costs,
      network: scenario.network,
      collectives,
      faults: faulty ? new Faults(yield* resolveFaults(scenario.faults, world, file)) : undefined,
      jitter: scenario.jitter,
      seed: scenario.seed,
      capacityBytes: scenario.memory ?? {},
      // Ranks with different numbers of rows, or at different speeds, meet each other in groups of their own.
      symmetric: !dropless && !faulty,
      source: source.source,
      record: options.record ?? false
    })
    const summary = measuredSteps(simulated, warmupSteps, steps)
    const tokens = world.size * planned.costs.shares.tokens
    const { predicted } = planned
    return {
      result: {
        digest: simulated.digest,
        scenario: scenario.name,
        task: scenario.task,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        network: scenario.network,
        collectives: "ring",
        steps,
        warmupSteps,
        ...summary.figures,
        tokensPerSecond: summary.figures.stepSeconds > 0 ? tokens / summary.figures.stepSeconds : 0,
        predictedSeconds: predicted.forwardSeconds + predicted.backwardSeconds,
        expertImbalance: dropless ? source.imbalance() : 1,
        makespanSeconds: simulated.makespanSeconds,
        peakBytes: {
          device: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.device)),
          host: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.host))
        },
        ops: simulated.ranks.reduce((sum, { ops, count }) => sum + ops * count, 0),
        links: simulated.links,
        estimates: simulated.estimates,
        warnings: prepared.warnings,
        details: {
          lanes: planned.plan.lanes,
          forwardDegrees: planned.plan.forwardDegrees,
          backwardDegrees: planned.plan.backwardDegrees,
          passes: diagnose(planned),
          fits: prepared.fits
        }
      },
      prepared,
      timeline: simulated.timeline,
      fromSeconds: summary.fromSeconds,
      toSeconds: summary.toSeconds,
      simulated
    }
  })

/** What bounds each pass, as planned. */
export const explainMoeTraining = (_scenario: MoeTrainingScenario, run: FamilyRun): Told => {
  const { planned } = (run as MoeTrainingRun).prepared
  const passes = diagnose(planned)
  return { json: { passes }, lines: ["the pipelined part, as planned", ...diagnosisLines(passes)] }
}
