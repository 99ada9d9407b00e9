// exec train: trains a scenario's model for real, with any data-parallel algorithm, on ranks that are threads of this process.
import { accessSync, constants, statSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import { formatBytes, formatSeconds } from "../../core/units.ts"
import { json, said } from "../../sim/cli/execute.ts"
import { writeError, writeOut } from "../../sim/cli/output.ts"
import { terminalProgress } from "../../sim/cli/progress.ts"
import { writeTextFile } from "../../sim/cli/text-file.ts"
import { Loader } from "../../sim/load.ts"
import { chromeTrace } from "../../sim/perfetto.ts"
import { loadLocatedScenario } from "../../sim/scenario-file.ts"
import { training, type Learnt } from "../train/train.ts"
import { dataParallelOnly, requireDevice, runCommand } from "./command.ts"
import { emulatedLinks } from "./links.ts"
import { prepareTraining, type PreparedTraining } from "./prepare.ts"

export interface TrainCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly steps?: number
  readonly text?: string
  readonly seed?: number
  readonly evaluateEvery?: number
  readonly planFrom?: string
  readonly out?: string
  readonly timeline?: string
  readonly json?: boolean
}

/** `exec train --json`, and what `--out` writes. */
export interface TrainResult extends Learnt {
  readonly scenario: string
  readonly algorithm: string
  readonly ranks: number
  readonly seed: number
  readonly parameters: number
  /** Steps asked for; fewer are done when the run was interrupted. */
  readonly steps: number
  /** Tokens to train on, and held out. */
  readonly text: { readonly trainTokens: number; readonly heldOutTokens: number }
  /** The most that a rank's tensors took; null when the run was interrupted. */
  readonly peakBytes: { readonly device: number; readonly host: number } | null
}

/** Held-out batches in an evaluation. */
const heldOutBatches = 16

export const trainCommand = (file: string, options: TrainCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const loaded = yield* loadLocatedScenario(file, overrides(options))
      const scenario = yield* dataParallelOnly(loaded.scenario, file)
      const prepared = yield* prepareTraining(scenario, file, new Loader(), options.planFrom).pipe(
        Effect.mapError(loaded.locate)
      )
      if (options.out !== undefined) yield* requireWritable(options.out, "--out")
      if (options.timeline !== undefined) yield* requireWritable(options.timeline, "--timeline")
      const steps = options.steps ?? scenario.steps ?? prepared.steps
      const evaluation = yield* evaluationOf(prepared, file, options.evaluateEvery ?? steps)
      yield* requireDevice
      const { world, planned } = prepared
      const progress = terminalProgress("train")
      const { run, learnt } = training({
        world,
        build: prepared.build,
        program: planned.program,
        steps,
        batchTokens: prepared.batchTokens,
        evaluation,
        onStep: ({ step, loss }) => progress.update(step, steps, `loss ${loss.toFixed(3)}`),
        capacityBytes: scenario.memory,
        record: options.timeline !== undefined,
        ...emulatedLinks(world, scenario.collectives.algorithm)
      })
      const told = (peakBytes: TrainResult["peakBytes"]): TrainResult => ({
        scenario: scenario.name,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        seed: scenario.seed,
        parameters: parameterCount(prepared.graph),
        steps,
        text: {
          trainTokens: prepared.corpus.train.length,
          heldOutTokens: prepared.corpus.heldOut.length
        },
        peakBytes,
        ...learnt()
      })
      const kept = (result: TrainResult) =>
        options.out === undefined ? Effect.void : writeTextFile(options.out, [json(result)])
      const text = (result: TrainResult) => (options.json === true ? json(result) : print(result))

      const ended = yield* run.pipe(
        Effect.ensuring(Effect.sync(progress.end)),
        Effect.onInterrupt(() =>
          Effect.suspend(() => {
            const result = told(null)
            if (result.stepsDone === 0) return Effect.void
            writeError(`exec: interrupted after ${result.stepsDone} of ${steps} steps\n`)
            return Effect.ignore(
              Effect.andThen(
                kept(result),
                Effect.sync(() => writeOut(text(result)))
              )
            )
          })
        )
      )
      if (options.timeline !== undefined && ended.timeline !== undefined) {
        yield* writeTextFile(options.timeline, chromeTrace(ended.timeline))
        writeError(`exec: wrote ${options.timeline}; open it in https://ui.perfetto.dev\n`)
      }
      const most = (place: "device" | "host") =>
        Math.max(...ended.ranks.map(({ peakBytes }) => peakBytes[place]))
      const result = told({ device: most("device"), host: most("host") })
      yield* kept(result)
      return said(text(result))
    })
  )

/** `--text` and `--seed` are fields of the scenario; a text is named as files on a command line are. */
const overrides = ({ set, text, seed }: TrainCommandOptions): ReadonlyArray<string> => [
  ...set,
  ...(text === undefined ? [] : [`training.text=${JSON.stringify(path.resolve(text))}`]),
  ...(seed === undefined ? [] : [`seed=${seed}`])
]

/** Fails before anything is trained where a result could not be written. */
const requireWritable = (file: string, option: string): Effect.Effect<void, InputError> =>
  Effect.try({
    try: () => {
      const existing = statSync(file, { throwIfNoEntry: false })
      if (existing?.isDirectory() === true) throw new Error("a folder")
      // A pipe or a device is written to in its place.
      const isReplaced = existing === undefined || existing.isFile()
      accessSync(isReplaced ? path.dirname(path.resolve(file)) : file, constants.W_OK)
    },
    catch: (cause) =>
      new InputError({
        file,
        field: option,
        value: cause instanceof Error ? cause.message : String(cause),
        accepted: "a file in an existing, writable folder"
      })
  })

/** Without text held out there is nothing to evaluate on, unless it was asked for. */
const evaluationOf = (
  { corpus, graph }: PreparedTraining,
  file: string,
  everySteps: number
): Effect.Effect<{ readonly everySteps: number; readonly batches: number } | undefined, InputError> => {
  const context = graph.inputs[0]!.shape[1]!
  if (corpus.heldOut.length > context) return Effect.succeed({ everySteps, batches: heldOutBatches })
  if (corpus.heldOut.length === 0) return Effect.succeed(undefined)
  return Effect.fail(
    new InputError({
      file,
      field: "training.heldOut",
      value: `${corpus.heldOut.length} characters held out`,
      accepted: `a share that leaves more than the ${context} characters of a window, or 0 to evaluate on nothing`
    })
  )
}

const print = (result: TrainResult): string => {
  const { losses, heldOutLosses, seconds, stepsDone, steps, peakBytes } = result
  const [first, last] = [losses[0], losses.at(-1)]
  const done = stepsDone === steps ? String(steps) : `${stepsDone} of ${steps}`
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${result.ranks} ranks, ${result.parameters} parameters, seed ${result.seed}`,
    `${done} steps in ${formatSeconds(seconds)}, ${formatSeconds(seconds / stepsDone)} each; ${Math.round(result.tokensPerSecond)} tokens/s`,
    `training loss ${first?.loss.toFixed(3)} to ${last?.loss.toFixed(3)}`
  ]
  for (const { step, loss } of heldOutLosses)
    lines.push(`held-out loss ${loss.toFixed(3)} after ${step} steps`)
  if (peakBytes !== null) lines.push(`at most ${formatBytes(peakBytes.device)} of device memory on a rank`)
  return `${lines.join("\n")}\n`
}
