// Of how many steps a command can keep every op, to look through it or write it down.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../run.ts"

/** So many take `sim explain` 3.5 GB (measured, 10,300 steps of scenarios/geo-gpt2.yaml), and a process has 4; `sim run --timeline` less. */
const mostOps = 4_000_000

/** Of more steps than ten times as many it is first found how many ops one has. */
const trialSteps = 10

/**
 * Fails with an InputError where a scenario has more steps than can be kept.
 *
 * @param why what keeps them and what would not: "to explain, of which ..."
 */
export const requireKept = (scenario: Scenario, file: string, loader: Loader, why: string) =>
  Effect.gen(function* () {
    if (!("steps" in scenario) || scenario.steps <= 10 * trialSteps) return
    const trial = { ...scenario, steps: trialSteps } as Scenario
    const { result, timeline } = yield* runScenario(trial, file, { loader, record: true })
    const opsPerStep = timeline!.rank.length / (trialSteps + (result.warmupSteps ?? 0))
    const most = Math.floor(mostOps / opsPerStep)
    if (scenario.steps > most)
      yield* new InputError({
        file,
        field: "steps",
        value: String(scenario.steps),
        accepted: `at most ${most} ${why}`
      })
  })
