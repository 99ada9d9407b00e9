// One scenario of serving, from its settings to its result.
import * as Effect from "effect/Effect"
import { isSized } from "../../../core/algorithms/kv-serving/choices.ts"
import type { KvServingScenario } from "../../../scenarios/families/kv-serving/scenario.ts"
import type { ServingOutcome, ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { MachineError } from "../../../core/machine/machine.ts"
import type { FamilyRun, RunOptions } from "../../run.ts"
import { Faults } from "../../faults.ts"
import { resolveFaults } from "../../../scenarios/resolve.ts"
import type { RunResult } from "../../../scenarios/result.ts"
import { simulate, type SimulationResult } from "../../simulate.ts"
import { breakEvenOf } from "./hand-over.ts"
import { keptSource } from "../../../scenarios/families/kv-serving/kept-source.ts"
import {
  requestTimes,
  servingFigures,
  tpotOf,
  ttftOf,
  type RequestTimes
} from "../../../scenarios/families/kv-serving/outcome.ts"
import { programs, resolveServing } from "../../../scenarios/families/kv-serving/resolve.ts"

/** `sim run --json` of serving. The figures are defined in family.ts. */
export interface KvServingResult extends RunResult, ReturnType<typeof servingFigures> {
  readonly network: "fluid" | "alpha-beta"
  /** Only where caches go to another node, and not of the full cache. */
  readonly breakEvenBytesPerSecond?: number
}

export interface KvServingRun extends FamilyRun {
  readonly result: KvServingResult
  readonly plan: ServingPlan
  readonly times: ReadonlyArray<RequestTimes>
  readonly simulated: SimulationResult<ServingOutcome>
}

export const runKvServing = (
  scenario: KvServingScenario,
  file: string,
  options: RunOptions
): Effect.Effect<KvServingRun, InputError | MachineError> =>
  Effect.gen(function* () {
    const { plan, world, costs, warnings } = yield* resolveServing(scenario, file, options.loader)
    const { seed, transfer, faults } = scenario
    const simulated = yield* simulate({
      world,
      program: programs[transfer.to](plan),
      costs: costs(),
      network: scenario.network,
      // One sender and one receiver: there is nothing else to collect.
      collectives: { algorithm: "ring" },
      faults: faults.length === 0 ? undefined : new Faults(yield* resolveFaults(faults, world, file)),
      jitter: scenario.jitter,
      seed,
      capacityBytes: scenario.memory ?? {},
      symmetric: false,
      record: options.record ?? false,
      source: keptSource(plan, seed)
    })
    const outcomes = simulated.ranks.map(({ value }) => value)
    const times = requestTimes(outcomes, plan.model)
    const { makespanSeconds } = simulated
    const sends = transfer.to === "node" && isSized(plan.settings)
    const breakEven = sends ? yield* breakEvenOf(plan, costs, transfer.latency, seed) : undefined
    return {
      result: {
        digest: simulated.digest,
        scenario: scenario.name,
        task: scenario.task,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        network: scenario.network,
        ...servingFigures(times, outcomes, makespanSeconds, scenario.objective),
        ...(breakEven === undefined ? {} : { breakEvenBytesPerSecond: breakEven }),
        makespanSeconds,
        peakBytes: {
          device: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.device)),
          host: Math.max(...simulated.ranks.map(({ peakBytes }) => peakBytes.host))
        },
        ops: simulated.ranks.reduce((sum, { ops, count }) => sum + ops * count, 0),
        links: simulated.links,
        estimates: simulated.estimates,
        warnings,
        details: {
          requests: times.map((one) => ({
            id: one.request.id,
            arrivalSeconds: one.request.arrivalSeconds,
            promptTokens: one.request.promptTokens,
            outputTokens: one.request.outputTokens,
            ttftSeconds: ttftOf(one),
            tpotSeconds: one.request.outputTokens > 1 ? tpotOf(one) : null,
            requestSeconds: one.lastSeconds - one.request.arrivalSeconds,
            promptCacheBytes: one.promptBytes
          }))
        }
      },
      timeline: simulated.timeline,
      plan,
      times,
      fromSeconds: 0,
      toSeconds: makespanSeconds,
      simulated
    }
  })
