// A serving scenario ready for the simulator, and what a run comes to. The figures are defined in family.ts.
import * as Effect from "effect/Effect"
import { isSized } from "../../../core/algorithms/kv-serving/choices.ts"
import type { ServingOutcome, ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { Host, Prepared } from "../../family.ts"
import { modeWarnings } from "../../host.ts"
import { idleWarnings } from "../../ignored.ts"
import { resolveFaults } from "../../resolve.ts"
import { breakEvenOf } from "./hand-over.ts"
import { ignored } from "./ignored.ts"
import { keptSource } from "./kept-source.ts"
import { requestTimes, servingFigures, tpotOf, ttftOf } from "./outcome.ts"
import { programs, resolveServing } from "./resolve.ts"
import type { KvServingScenario } from "./scenario.ts"

interface KvServingFigures extends ReturnType<typeof servingFigures> {
  /** Only where caches go to another node, and not of the full cache. */
  readonly breakEvenBytesPerSecond?: number
}

export interface PreparedServing extends Prepared<ServingOutcome, KvServingFigures> {
  readonly plan: ServingPlan
}

export const prepare = (
  scenario: KvServingScenario,
  file: string,
  { loader }: Host
): Effect.Effect<PreparedServing, InputError> =>
  Effect.gen(function* () {
    const { plan, world, costs, warnings } = yield* resolveServing(scenario, file, loader)
    const { seed, transfer, network } = scenario
    const own = costs()
    return {
      plan,
      simulable: {
        world,
        program: programs[transfer.to](plan),
        costs: own,
        network,
        // One sender and one receiver: there is nothing else to collect.
        collectives: { algorithm: "ring" },
        faults: yield* resolveFaults(scenario.faults, world, file),
        jitter: scenario.jitter,
        seed,
        capacityBytes: scenario.memory,
        symmetric: false,
        source: keptSource(plan, seed)
      },
      summarise: ({ ranks, makespanSeconds, idle }, simulator) =>
        Effect.gen(function* () {
          const outcomes = ranks.map(({ value }) => value)
          const times = requestTimes(outcomes, plan.model)
          const sends = transfer.to === "node" && isSized(plan.settings)
          const breakEven = sends
            ? yield* breakEvenOf(plan, costs, world.links.inter, seed, simulator)
            : undefined
          return {
            figures: {
              ...servingFigures(times, outcomes, makespanSeconds, scenario.objective),
              ...(breakEven === undefined ? {} : { breakEvenBytesPerSecond: breakEven })
            },
            fromSeconds: 0,
            toSeconds: makespanSeconds,
            network,
            warnings: [
              ...warnings,
              ...modeWarnings(scenario.host, own),
              ...idleWarnings(idle, [["interWindow", "transfer.window"]], ignored(scenario))
            ],
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
          }
        })
    }
  })
