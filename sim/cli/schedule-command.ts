// sim schedule: what the algorithm's planner decides for a scenario, and what other planners would have decided.
import * as Effect from "effect/Effect"
import { hostOf } from "../run.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"

export interface ScheduleCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
}

export const scheduleCommand = (file: string, options: ScheduleCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      const told = yield* Effect.mapError(
        familyOf(scenario).schedule(scenario, file, hostOf(new Loader())),
        locate
      )
      return said(options.json === true ? json(told.json) : `${told.lines.join("\n")}\n`)
    })
  )
