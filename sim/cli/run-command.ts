// sim run: one scenario, its result, and its timeline where asked for.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { withIgnoredFields, type Scenario } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../run.ts"
import { execute, json, said, toldThough } from "../../scenarios/cli/execute.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { filesOf } from "../../scenarios/named-files.ts"
import { failureOf } from "../study/failure.ts"
import { requireKept } from "./kept-ops.ts"
import { printRun } from "./print-run.ts"
import { simulating } from "./simulating.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"

export interface RunCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
  readonly timeline?: string
  readonly record?: string
}

/** What a run that came to no end tells a script. */
const failed = ({ task, name, algorithm }: Scenario, error: MachineError) => ({
  scenario: name,
  task,
  algorithm: algorithm.name,
  ...failureOf(error)
})

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
      const loader = new Loader()
      const kept = record
        ? requireKept(scenario, file, loader, "with --timeline or --record, for which every op is kept")
        : Effect.void
      const ran = yield* Effect.result(
        kept.pipe(
          Effect.andThen(simulating((onSteps) => runScenario(scenario, file, { loader, record, onSteps }))),
          Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
        )
      )
      if (Result.isFailure(ran)) {
        const error = ran.failure
        if (options.json !== true || error instanceof InputError) return yield* error
        writeError(`sim: ${error.message}\n`)
        return { text: json(failed(scenario, error)), ok: false }
      }
      const run = ran.success
      const result = withIgnoredFields(run.result, scenario)
      const { timeline } = run
      const files = Effect.gen(function* () {
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
      })
      return yield* toldThough(said(options.json === true ? json(result) : printRun(result)), files)
    })
  )
