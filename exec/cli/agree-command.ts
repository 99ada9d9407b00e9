// exec agree: one scenario on both machines, and whether they agree. Exit code 1 when they do not.
import * as Effect from "effect/Effect"
import { agrees } from "../../core/agreement/agree.ts"
import type { Disagreement } from "../../core/agreement/disagreement.ts"
import { InputError } from "../../core/input-error.ts"
import { formatSeconds } from "../../core/units.ts"
import { json } from "../../scenarios/cli/execute.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { Loader } from "../../scenarios/load.ts"
import { chromeTrace } from "../../traces/perfetto.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { runnableOn, runOnBoth } from "./both-machines.ts"
import { requireDevice, runCommand, warn } from "./command.ts"
import { emulatedDevice } from "./emulated-device.ts"
import { sideBySide } from "./side-by-side.ts"

export interface AgreeCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly emulateDevice?: boolean
  readonly timeline?: string
  readonly json?: boolean
}

/** `exec agree --json`. */
export interface AgreeResult {
  readonly scenario: string
  readonly task: string
  readonly algorithm: string
  readonly ranks: number
  readonly ops: number
  readonly decisions: boolean
  readonly values: boolean
  /** Tensors whose values at the end were compared. */
  readonly comparedTensors: number
  readonly order: boolean
  /** Simulated makespan over real makespan, less 1. */
  readonly timeError: number
  readonly simulatedSeconds: number
  readonly executedSeconds: number
  readonly firstDisagreement: Disagreement | null
  /** Fields of the scenario that have no effect, but on what is planned. */
  readonly warnings: ReadonlyArray<string>
}

export const agreeCommand = (file: string, options: AgreeCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      yield* requireDevice
      const warnings = yield* warn(scenario, true)
      const runnable = yield* runnableOn(scenario, file, new Loader()).pipe(
        Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
      )
      const leastSeconds =
        options.emulateDevice === true
          ? yield* Effect.mapError(emulatedDevice(scenario, file), locate)
          : undefined
      const { agreement, simulated, executed } = yield* runOnBoth({ ...runnable, leastSeconds })
      if (options.timeline !== undefined) {
        const both = sideBySide(simulated.timeline!, executed.timeline!, runnable.world.size)
        yield* writeTextFile(options.timeline, chromeTrace(both.timeline, both.nameOf))
        writeError(`exec: wrote ${options.timeline}; open it in https://ui.perfetto.dev\n`)
      }
      const result: AgreeResult = {
        scenario: scenario.name,
        task: scenario.task,
        algorithm: scenario.algorithm.name,
        ranks: runnable.world.size,
        ops: executed.ranks.reduce((sum, { ops }) => sum + ops, 0),
        decisions: agreement.decisions,
        values: agreement.values ?? false,
        comparedTensors: agreement.comparedTensors,
        order: agreement.order,
        timeError: agreement.timeError,
        simulatedSeconds: simulated.makespanSeconds,
        executedSeconds: executed.makespanSeconds,
        firstDisagreement: agreement.firstDisagreement ?? null,
        warnings
      }
      return { text: options.json === true ? json(result) : print(result), ok: agrees(agreement) }
    })
  )

const print = (result: AgreeResult): string => {
  const { firstDisagreement, timeError } = result
  const mark = (ok: boolean): string => (ok ? "agree" : "DIFFER")
  const percent = `${timeError >= 0 ? "+" : ""}${(100 * timeError).toFixed(1)} %`
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${result.ranks} ranks, ${result.ops} ops`,
    `decisions  ${mark(result.decisions)}`,
    `values     ${mark(result.values)}  (${result.comparedTensors} tensors at the end, and everything read)`,
    `order      ${result.order ? "legal" : "ILLEGAL"}`,
    `time       ${percent}  (simulated ${formatSeconds(result.simulatedSeconds)}, executed ${formatSeconds(result.executedSeconds)})`
  ]
  if (firstDisagreement !== null) lines.push(`first disagreement: ${firstDisagreement.message}`)
  return `${lines.join("\n")}\n`
}
