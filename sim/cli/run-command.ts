// sim run: one scenario, its result, and its timeline where asked for.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"

import { withIgnoredFields } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../run.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { filesOf, requireApart } from "../../scenarios/cli/outputs.ts"
import { printRun } from "./print-run.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"

export interface RunCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
  readonly timeline?: string
  readonly record?: string
}

export const runCommand = (file: string, options: RunCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      yield* requireApart(
        [
          ["--timeline", options.timeline],
          ["--record", options.record]
        ],
        filesOf(scenario, file)
      )
      const record = options.timeline !== undefined || options.record !== undefined
      const run = yield* runScenario(scenario, file, { loader: new Loader(), record }).pipe(
        Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
      )
      const result = withIgnoredFields(run.result, scenario)
      const { timeline } = run
      if (timeline !== undefined && options.timeline !== undefined) {
        const path = options.timeline
        const { chromeTrace } = yield* Effect.promise(() => import("../../traces/perfetto.ts"))
        yield* writeTextFile(path, chromeTrace(timeline))
        writeError(`sim: wrote ${path}; open it in https://ui.perfetto.dev\n`)
      }
      if (timeline !== undefined && options.record !== undefined) {
        const { writeTimeline } = yield* Effect.promise(() => import("../../traces/timeline-file.ts"))
        yield* writeTimeline(options.record, timeline)
        writeError(`sim: wrote ${options.record}\n`)
      }
      return said(options.json === true ? json(result) : printRun(result))
    })
  )
