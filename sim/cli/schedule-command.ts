// sim schedule: what the algorithm's planner decides for a scenario, and what other planners would have decided.
import * as Effect from "effect/Effect"
import { printEstimates } from "../../core/cost/provenance.ts"
import { hostOf } from "../run.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { section } from "../../scenarios/table.ts"
import { InputError } from "../../core/input-error.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { terminalProgress } from "../../scenarios/cli/progress.ts"

export interface ScheduleCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
  readonly algorithms?: string
}

export const scheduleCommand = (file: string, options: ScheduleCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      const family = familyOf(scenario)
      if (options.algorithms !== undefined && scenario.task !== "expert-offload") {
        return yield* new InputError({
          file: "--algorithms",
          field: "",
          value: options.algorithms,
          accepted:
            "a scenario of task expert-offload: other schedules are of one algorithm, which --set algorithm names"
        })
      }
      const progress = terminalProgress("schedule")
      const host = {
        ...hostOf(new Loader()),
        only: options.algorithms?.split(",").map((name) => name.trim()),
        progress: progress.update
      }
      const told = yield* Effect.ensuring(
        Effect.mapError(family.schedule(scenario, file, host), locate),
        Effect.sync(() => progress.end())
      )
      const { estimates = [] } = told
      const warnings = [...(told.warnings ?? []), ...family.ignored(scenario)]
      return said(
        options.json === true
          ? json({ ...(told.json as object), estimates, warnings })
          : `${[
              ...told.lines,
              ...section("not measured", printEstimates(estimates)),
              ...section("warnings", warnings)
            ].join("\n")}\n`
      )
    })
  )
