// sim schedule: what the algorithm's planner decides for a scenario, and what other planners would have decided.
import * as Effect from "effect/Effect"
import { hostOf } from "../run.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { section } from "../../scenarios/table.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"

export interface ScheduleCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
}

export const scheduleCommand = (file: string, options: ScheduleCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      const family = familyOf(scenario)
      const told = yield* Effect.mapError(family.schedule(scenario, file, hostOf(new Loader())), locate)
      const warnings = family.ignored(scenario)
      return said(
        options.json === true
          ? json({ ...(told.json as object), warnings })
          : `${[...told.lines, ...section("warnings", warnings)].join("\n")}\n`
      )
    })
  )
