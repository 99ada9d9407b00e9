// sim explain: why a scenario's step takes as long as it does, from the timeline of a run.
import * as Effect from "effect/Effect"
import { printEstimates } from "../../core/cost/provenance.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { InputError } from "../../core/input-error.ts"
import { explain, stepsOf, stepWindow } from "../explain/explain.ts"
import { wireLatency } from "../explain/wire-latency.ts"
import { printExplanation } from "../explain/print.ts"
import { withIgnoredFields } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../run.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { section } from "../../scenarios/table.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { counted } from "../../core/units.ts"
import { requireKept } from "./kept-ops.ts"
import { simulating } from "./simulating.ts"

export interface ExplainCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly rank?: number
  readonly json?: boolean
}

export const explainCommand = (file: string, options: ExplainCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      const told = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.mapError(effect, (error) => (error instanceof InputError ? locate(error) : error))
      const loader = new Loader()
      yield* told(
        requireKept(scenario, file, loader, "to explain, of which every op is kept; sim run takes more")
      )
      const run = yield* told(
        simulating((onSteps) => runScenario(scenario, file, { loader, record: true, onSteps }))
      )
      const { result, timeline } = run
      if (timeline === undefined) return yield* Effect.die(new Error("a recorded run has no timeline"))
      const known = [...new Set(timeline.rank)].toSorted((a, b) => a - b)
      const rank = options.rank ?? lastToEnd(timeline)
      const warmupSteps = result.warmupSteps ?? 0
      const steps = stepsOf(timeline, rank).filter((step) => step >= warmupSteps)
      const last = result.steps === undefined ? (steps.at(-1) ?? 0) : warmupSteps + result.steps - 1
      const window = steps.length === 0 ? undefined : stepWindow(timeline, rank, steps[0]!, last)
      if (window === undefined) {
        // Ranks that are alike are simulated once.
        const others = options.rank !== undefined && options.rank < (result.ranks ?? 0)
        return yield* new InputError({
          file: "--rank",
          field: "",
          value: String(rank),
          accepted: `a rank that was simulated by itself: ${known.slice(0, 16).join(", ")}${known.length > 16 ? ", ..." : ""}${others ? "; this one is like one of them" : ""}`
        })
      }
      const explanation = explain(timeline, window, {
        opLogs: run.simulated.opLogs,
        wireLatencySeconds: wireLatency(run.prepared.simulable, timeline, run.simulated.opLogs)
      })
      const more = run.prepared.explain?.()
      const { warnings, estimates } = withIgnoredFields(result, scenario)
      const title = `${scenario.name}: ${result.algorithm} on ${counted(result.ranks, "rank")}`
      const columns = process.stdout.isTTY ? process.stdout.columns : undefined
      return said(
        options.json === true
          ? json({
              ...explanation,
              ...(more === undefined ? {} : { family: more.json }),
              estimates,
              warnings
            })
          : `${[
              printExplanation(explanation, { title, ...(columns === undefined ? {} : { columns }) }),
              ...(more === undefined ? [] : ["", ...more.lines]),
              ...section("not measured", printEstimates(estimates)),
              ...section("warnings", warnings)
            ].join("\n")}\n`
      )
    })
  )

/** The rank whose last op ends last: the one whose time the step's is. */
const lastToEnd = ({ rank, endSeconds }: Timeline): number => {
  let row = 0
  for (let i = 1; i < rank.length; i++) if (endSeconds[i]! > endSeconds[row]!) row = i
  return rank[row] ?? 0
}
