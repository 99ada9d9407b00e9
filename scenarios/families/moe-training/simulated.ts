// A scenario of MoE training ready for the simulator, and what a run comes to.
import * as Effect from "effect/Effect"
import { moeGroups } from "../../../core/algorithms/moe-training/groups.ts"
import { moeTraining } from "../../../core/algorithms/moe-training/program.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { Host, Prepared } from "../../family.ts"
import { idleWarnings, unmeasuredFaultWarnings, windowFields } from "../../ignored.ts"
import { modeWarnings } from "../../host.ts"
import { resolveFaults } from "../../resolve.ts"
import { mostRoutedExperts, requireHeld } from "../../sizes.ts"
import { measuredSteps, type StepFigures } from "../../step-figures.ts"
import { diagnose, diagnosisLines } from "./diagnosis.ts"
import { ignored, isUsual } from "./ignored.ts"
import { planScenario, type PlannedScenario } from "./prepare.ts"
import { drawn, recorded, routingSource } from "./routing-source.ts"
import type { MoeTrainingScenario } from "./scenario.ts"

/** `sim run --json` of MoE training; `details` has the plan, the fits and a diagnosis of each pass. */
interface MoeFigures extends StepFigures {
  readonly tokensPerSecond: number
  /** What the planner reckoned a step takes. */
  readonly predictedSeconds: number
  readonly expertImbalance: number
}

export interface PreparedMoe extends Prepared<unknown, MoeFigures> {
  readonly planned: PlannedScenario
}

export const warmupSteps = 1

export const prepare = (
  scenario: MoeTrainingScenario,
  file: string,
  host: Host
): Effect.Effect<PreparedMoe, InputError> =>
  Effect.gen(function* () {
    const resolved = yield* planScenario(scenario, file, host)
    const { world, model, costs, collectives, planned } = resolved
    const { steps } = scenario
    const dropless = model.capacityFactor === "dropless"
    if (dropless)
      yield* requireHeld(
        { file, field: "model.experts", value: model.experts },
        model.layers * moeGroups(world, 0).perNode * (warmupSteps + steps + 2),
        mostRoutedExperts,
        "products of each without a capacity, in layers, on ranks of a node and in steps"
      )
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
    const source = routingSource(choices, model.experts)
    const { inNode, across } = moeGroups(world, 0)
    const faults = yield* resolveFaults(scenario.faults, world, file, scenario.world.links)
    return {
      planned: resolved,
      simulable: {
        world,
        program: moeTraining({ model, plan: planned.plan, steps: warmupSteps + steps }),
        costs,
        network: scenario.network,
        collectives,
        faults,
        jitter: scenario.jitter,
        seed: scenario.seed,
        capacityBytes: scenario.memory,
        steps: warmupSteps + steps,
        // Ranks with different numbers of rows, or at different speeds, meet each other in groups of their own.
        symmetric: !dropless && faults.length === 0,
        // Nor do nodes of unlike sites stand for each other.
        groups: [inNode, across],
        source: source.source
      },
      summarise: (ended) => {
        const { figures, fromSeconds, toSeconds } = measuredSteps(ended, warmupSteps, steps)
        const tokens = world.size * planned.costs.shares.tokens
        const { predicted } = planned
        return Effect.succeed({
          figures: {
            ...figures,
            tokensPerSecond: figures.stepSeconds > 0 ? tokens / figures.stepSeconds : 0,
            predictedSeconds: predicted.forwardSeconds + predicted.backwardSeconds + predicted.alikeSeconds,
            expertImbalance: dropless ? source.imbalance() : 1
          },
          fromSeconds,
          toSeconds,
          steps,
          warmupSteps,
          network: scenario.network,
          collectives: "ring" as const,
          warnings: [
            ...resolved.warnings,
            ...unmeasuredFaultWarnings(scenario.faults, { fromSeconds, toSeconds }),
            ...modeWarnings(scenario.host, costs),
            ...idleWarnings(
              ended.idle,
              [
                ...(isUsual(scenario.costs.between) ? [] : [["table", "costs.between"] as const]),
                ["waitSeconds", "costs.wait"],
                ["slowdown", "costs.slowdown"],
                ...windowFields
              ],
              [...ignored(scenario), ...resolved.warnings]
            )
          ],
          details: {
            lanes: planned.plan.lanes,
            forwardDegrees: planned.plan.forwardDegrees,
            backwardDegrees: planned.plan.backwardDegrees,
            passes: diagnose(planned),
            fits: resolved.fits
          }
        })
      },
      /** What bounds each pass, as planned. */
      explain: () => {
        const passes = diagnose(planned)
        return { json: { passes }, lines: ["the pipelined part, as planned", ...diagnosisLines(passes)] }
      }
    }
  })
