// exec agree: one scenario on both machines, and whether they agree. Exit code 1 when they do not. The real run is of threads, of
// a job of processes, or one that was recorded elsewhere.
import * as Effect from "effect/Effect"
import { agrees } from "../../core/agreement/agree.ts"
import type { Disagreement } from "../../core/agreement/disagreement.ts"
import { InputError } from "../../core/input-error.ts"
import { formatSeconds, counted } from "../../core/units.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import { json, said, toldThough, type Outcome } from "../../scenarios/cli/execute.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { patientProgress } from "../../scenarios/cli/progress.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { filesNamedIn, filesOf } from "../../scenarios/named-files.ts"
import { Loader } from "../../scenarios/load.ts"
import type { Scenario } from "../../scenarios/families.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { chromeTrace } from "../../traces/perfetto.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import type { TraceError } from "../../traces/trace-error.ts"
import { recordFiles } from "../../scenarios/cli/record/files.ts"
import { readRecord, writeRecord } from "../record-folder.ts"
import type { RunRecord } from "../record-run.ts"
import { holdToSimulation, runForReal, runnableOn, stepsOf, type BothOptions } from "./both-machines.ts"
import { CurrentWarnings, requireDevice, warn } from "./command.ts"
import { emulatedDevice, leastSecondsOn } from "./emulated-device.ts"
import { horizonOf, type Horizon } from "./horizon.ts"
import { digestOf, perhapsInJob, runAsJob, warnOfLinks, type JobOptions } from "./job.ts"
import { sideBySide } from "./side-by-side.ts"

export interface AgreeCommandOptions extends JobOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly emulateDevice?: boolean
  readonly timeline?: string
  readonly record?: string
  readonly from?: string
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
  /** Elements that came over narrow wires, and how many the two machines rounded to different sides; the simulation goes on with the real ones. */
  readonly narrowWires: { readonly elements: number; readonly turned: number }
  /** Elements that updates of parameters wrote, and how many simulated gradients alone would have moved elsewhere. */
  readonly updates: { readonly elements: number; readonly turned: number }
  /** What was chosen by scores, and how many of these choices took others of a tie in the real run; the simulation goes on with them. */
  readonly ties: { readonly choices: number; readonly turned: number }
  /**
   * Where values at the end differ because rounding grew: how far the two can be held to each other. Then `values` and
   * `comparedTensors` are those after so many steps, and there is no disagreement. Null when values agree at the end, and when it
   * is not rounding.
   */
  readonly horizon: {
    readonly steps: number
    /** The first step after which something that was watched is further apart than it may be. */
    readonly firstBeyond: number
    /** The largest factor by which a step widened the gap. */
    readonly factor: number
  } | null
  readonly order: boolean
  /** Simulated makespan over real makespan, less 1. */
  readonly timeError: number
  readonly simulatedSeconds: number
  readonly executedSeconds: number
  readonly firstDisagreement: Disagreement | null
  /** What standard error warned of: what has no effect, but on what is planned. */
  readonly warnings: ReadonlyArray<string>
}

export const agreeCommand = (file: string, options: AgreeCommandOptions): Promise<number> => {
  // What is only compared is compared once.
  const { processes: _, ...alone } = options
  return runAsJob(file, options.from === undefined ? options : alone, agreed(file, options))
}

const agreed = (file: string, options: AgreeCommandOptions) =>
  Effect.gen(function* () {
    const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
    yield* requireAlone(options)
    yield* requireApart(
      [
        ["--timeline", options.timeline],
        ...recordFiles(options.record).map((one) => ["--record", one] as const)
      ],
      [...filesOf(scenario, file), ...recordFiles(options.from)]
    )
    if (options.from === undefined) yield* requireDevice
    const runnable = yield* runnableOn(scenario, file, new Loader()).pipe(
      Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
    )
    const leastSeconds =
      options.emulateDevice === true
        ? leastSecondsOn(yield* Effect.mapError(emulatedDevice(scenario, file), locate))
        : undefined
    const both = { ...runnable, leastSeconds }
    const ranks = runnable.world.size
    const of = { scenario: scenario.name, scenarioDigest: digestOf(scenario), ranks }
    if (options.from !== undefined)
      return yield* compared(scenario, both, yield* readRecord(options.from, of), options)
    const together = {
      ranks,
      file,
      plan: { scenario, emulateDevice: options.emulateDevice },
      files: filesNamedIn(scenario, file)
    }
    return yield* perhapsInJob(options, together, (job) =>
      Effect.gen(function* () {
        if (job?.rank === 0) yield* warnOfLinks(runnable.world, job)
        const { record } = yield* runForReal(both, job)
        if (job !== undefined && job.rank !== 0) return said("")
        // Kept before it is compared, which takes memory; and compared whether it could be kept or not.
        const kept = yield* Effect.result(recorded(options.record, of, record))
        const outcome = yield* compared(scenario, both, record, options)
        return yield* toldThough(outcome, Effect.fromResult(kept))
      })
    )
  })

const recorded = (folder: string | undefined, of: Parameters<typeof writeRecord>[1], record: RunRecord) =>
  Effect.gen(function* () {
    if (folder === undefined) return
    yield* writeRecord(folder, of, record)
    writeError(`exec: wrote ${folder}; exec agree --from compares it elsewhere\n`)
  })

/** A run that was recorded is run no more. */
const requireAlone = ({
  from,
  record,
  emulateDevice,
  processes,
  transport,
  rendezvousTimeout,
  backend
}: AgreeCommandOptions): Effect.Effect<void, InputError> => {
  const other = Object.entries({
    "--record": record !== undefined,
    "--emulate-device": emulateDevice === true,
    "--processes": processes !== undefined,
    "--transport": transport !== undefined,
    "--rendezvous-timeout": rendezvousTimeout !== undefined,
    "--backend": backend !== undefined && backend !== "auto"
  }).find(([, given]) => given)?.[0]
  if (from === undefined || other === undefined) return Effect.void
  return Effect.fail(
    new InputError({
      file: "--from",
      field: "",
      value: from,
      accepted: `--from without ${other}: nothing is run`
    })
  )
}

/** Simulates the program and compares; at rank 0, where a job of processes ran. */
const compared = (
  scenario: Scenario,
  both: BothOptions<unknown> & Pick<Runnable, "upTo">,
  record: RunRecord,
  options: AgreeCommandOptions
): Effect.Effect<Outcome, InputError | MachineError | TraceError> =>
  Effect.gen(function* () {
    yield* warn(scenario, true)
    const { upTo, world } = both
    const watchful = { ...both, onSimulated: toldOfSteps() }
    const { agreement, simulated } = yield* holdToSimulation(watchful, record)
    const parted = agreement.firstDisagreement?.kind === "values"
    const horizon =
      parted && upTo !== undefined && options.from === undefined
        ? yield* horizonOf(watchful, (steps) => upTo(steps), stepsOf(record.journals))
        : undefined
    const held = horizon?.agreement
    const files = Effect.gen(function* () {
      if (options.timeline === undefined) return
      const pair = sideBySide(simulated.timeline!, record.timeline, world.size)
      yield* writeTextFile(options.timeline, chromeTrace(pair.timeline, pair.nameOf))
      writeError(`exec: wrote ${options.timeline}; open it in https://ui.perfetto.dev\n`)
    })
    const result: AgreeResult = {
      scenario: scenario.name,
      task: scenario.task,
      algorithm: scenario.algorithm.name,
      ranks: world.size,
      ops: record.opLogs.reduce((sum, { entries }) => sum + entries.length, 0),
      decisions: agreement.decisions,
      values: (held ?? agreement).values ?? false,
      comparedTensors: (held ?? agreement).comparedTensors,
      narrowWires: (held ?? agreement).narrowWires ?? { elements: 0, turned: 0 },
      updates: (held ?? agreement).updates ?? { elements: 0, turned: 0 },
      ties: (held ?? agreement).ties ?? { choices: 0, turned: 0 },
      horizon:
        horizon === undefined || held === undefined
          ? null
          : {
              steps: horizon.steps,
              firstBeyond: horizon.growth.firstBeyond,
              factor: horizon.growth.steepest.factor
            },
      order: agreement.order,
      timeError: agreement.timeError,
      simulatedSeconds: simulated.makespanSeconds,
      executedSeconds: record.makespanSeconds,
      firstDisagreement: (held ?? agreement).firstDisagreement ?? null,
      warnings: (yield* CurrentWarnings).told
    }
    const text = options.json === true ? json(result) : print(result, horizon)
    return yield* toldThough({ text, ok: agrees(held ?? agreement) }, files)
  })

/** Each simulation begins at its first step. */
const toldOfSteps = (): BothOptions<unknown>["onSimulated"] => {
  let progress = simulating()
  return (steps, of) => {
    progress.update(steps, of)
    if (steps < of) return
    progress.end()
    progress = simulating()
  }
}

const simulating = () =>
  patientProgress("simulating steps with values", (line) =>
    writeError(`exec: ${line}; fewer steps (--set steps=20) are compared sooner\n`)
  )

const print = (result: AgreeResult, watched: Horizon | undefined): string => {
  const { firstDisagreement, horizon, narrowWires, ties, timeError, updates } = result
  const mark = (ok: boolean): string => (ok ? "agree" : "DIFFER")
  const percent = `${timeError >= 0 ? "+" : ""}${(100 * timeError).toFixed(1)} %`
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${counted(result.ranks, "rank")}, ${counted(result.ops, "op")}`,
    `decisions  ${mark(result.decisions)}`,
    `values     ${mark(result.values)}  (${counted(result.comparedTensors, "tensor")} ${horizon === null ? "at the end" : `after ${counted(horizon.steps, "step")}`}, and everything read)`,
    ...(narrowWires.elements === 0
      ? []
      : [
          `           ${narrowWires.turned} of ${counted(narrowWires.elements, "element")} that came over narrow wires were rounded to another side`
        ]),
    ...(updates.turned === 0
      ? []
      : [
          `           ${updates.turned} of ${counted(updates.elements, "element")} that updates wrote went where the simulated gradients alone would not have moved them`
        ]),
    ...(ties.turned === 0
      ? []
      : [
          `           ${ties.turned} of ${counted(ties.choices, "choice")} by scores took another of a tie on the real machine`
        ]),
    ...(horizon === null
      ? []
      : [
          `           ${horizon.steps} steps are as far as values can be compared: what one rounds otherwise than the other grows, at most ${horizon.factor.toFixed(1)} x a step, and is more than the tolerance after step ${horizon.firstBeyond}`
        ]),
    `order      ${result.order ? "legal" : "ILLEGAL"}`,
    `time       ${percent}  (simulated ${formatSeconds(result.simulatedSeconds)}, executed ${formatSeconds(result.executedSeconds)})`
  ]
  if (firstDisagreement !== null) lines.push(`first disagreement: ${firstDisagreement.message}`)
  if (firstDisagreement !== null && watched !== undefined) {
    const { firstBeyond, ofRounding, steepest } = watched.growth
    lines.push(
      `values are further apart than they may be after step ${firstBeyond}; ${
        ofRounding
          ? "they part as rounding does, but agree after no number of steps"
          : `not as rounding grows: step ${steepest.step} made the gap ${steepest.factor.toPrecision(2)} times as wide`
      }`
    )
  }
  return `${lines.join("\n")}\n`
}
