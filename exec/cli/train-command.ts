// exec train: trains a scenario's model for real, with any data-parallel algorithm or MoE schedule, on ranks that are threads of
// this process.
import { accessSync, constants, statSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import type { MoeModel } from "../../core/algorithms/moe-training/model.ts"
import type { MoeTrainingScenario } from "../../scenarios/families/moe-training/scenario.ts"
import { InputError } from "../../core/input-error.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import type { Scenario } from "../../scenarios/scenario.ts"
import { formatBytes, formatSeconds } from "../../core/units.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { writeError, writeOut } from "../../scenarios/cli/output.ts"
import { terminalProgress } from "../../scenarios/cli/progress.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { prepareMoe } from "../../scenarios/families/moe-training/prepare.ts"
import { Loader } from "../../scenarios/load.ts"
import { chromeTrace } from "../../traces/perfetto.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import type { TraceError } from "../../traces/trace-error.ts"
import { writeWeights } from "../../traces/weights-file.ts"
import type { CurvePoint } from "../train/curve.ts"
import { FinalWeights } from "../train/final-weights.ts"
import { moeLayerTraining, training, type Learnt, type Training } from "../train/train.ts"
import { requireDevice, runCommand } from "./command.ts"
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
  readonly save?: string
  readonly json?: boolean
}

/** `exec train --json`, and what `--out` writes. */
export interface TrainResult extends Learnt {
  readonly scenario: string
  readonly algorithm: string
  readonly ranks: number
  readonly seed: number
  /** Trainable numbers, tied weights once; of a model that learns a text. */
  readonly parameters?: number
  /** Steps asked for; fewer are done when the run was interrupted. */
  readonly steps: number
  /** Tokens to train on, and held out; where a text is learnt. */
  readonly text?: { readonly trainTokens: number; readonly heldOutTokens: number }
  /** The most that a rank's tensors took; null when the run was interrupted. */
  readonly peakBytes: { readonly device: number; readonly host: number } | null
}

/** A scenario made ready to be trained for so many steps. */
interface Trainable {
  readonly facts: Pick<TrainResult, "scenario" | "algorithm" | "ranks" | "seed" | "parameters" | "text">
  readonly steps: number
  readonly begin: (options: {
    readonly record: boolean
    readonly onStep: (point: CurvePoint) => void
  }) => Training
  /** Writes what rank 0 has learnt when the run has ended; of a model that learns a text. */
  readonly save?: (file: string) => Effect.Effect<void, TraceError>
}

/** Held-out batches in an evaluation. */
const heldOutBatches = 16

export const trainCommand = (file: string, options: TrainCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, overrides(options))
      const { facts, steps, begin, save } = yield* trainable(scenario, file, options).pipe(
        Effect.mapError(locate)
      )
      if (options.out !== undefined) yield* requireWritable(options.out, "--out")
      if (options.timeline !== undefined) yield* requireWritable(options.timeline, "--timeline")
      if (options.save !== undefined) yield* requireWritable(options.save, "--save")
      yield* requireDevice
      const progress = terminalProgress("train")
      const { run, learnt } = begin({
        record: options.timeline !== undefined,
        onStep: ({ step, loss }) => progress.update(step, steps, `loss ${loss.toFixed(3)}`)
      })
      const told = (peakBytes: TrainResult["peakBytes"]): TrainResult => ({
        ...facts,
        steps,
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
      if (options.save !== undefined && save !== undefined) yield* save(options.save)
      const most = (place: "device" | "host") =>
        Math.max(...ended.ranks.map(({ peakBytes }) => peakBytes[place]))
      const result = told({ device: most("device"), host: most("host") })
      yield* kept(result)
      return said(text(result))
    })
  )

const trainable = (
  scenario: Scenario,
  file: string,
  options: TrainCommandOptions
): Effect.Effect<Trainable, InputError> => {
  switch (scenario.task) {
    case "data-parallel":
      return ofText(scenario, file, options)
    case "moe-training":
      return ofMoeLayers(scenario, file, options)
    default:
      return Effect.fail(
        new InputError({
          file,
          field: "task",
          value: scenario.task,
          accepted: "data-parallel or moe-training; exec generate runs the others"
        })
      )
  }
}

/** A model that learns a text, with a data-parallel algorithm. */
const ofText = (scenario: DataParallelScenario, file: string, options: TrainCommandOptions) =>
  Effect.gen(function* () {
    const prepared = yield* prepareTraining(scenario, file, new Loader(), options.planFrom)
    const { world, planned, build, batchTokens, corpus, graph } = prepared
    const steps = options.steps ?? scenario.steps ?? prepared.steps
    const evaluation = yield* evaluationOf(prepared, file, options.evaluateEvery ?? steps)
    const final = new FinalWeights()
    const trainable: Trainable = {
      facts: {
        scenario: scenario.name,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        seed: scenario.seed,
        parameters: parameterCount(graph),
        text: { trainTokens: corpus.train.length, heldOutTokens: corpus.heldOut.length }
      },
      steps,
      begin: ({ record, onStep }) =>
        training({
          world,
          build: final.watched(build),
          program: planned.program,
          steps,
          batchTokens,
          evaluation,
          onStep,
          atEnd: options.save === undefined ? undefined : (ended) => final.take(ended),
          capacityBytes: scenario.memory,
          record,
          ...emulatedLinks(world, scenario.collectives.algorithm)
        }),
      save: (path) => writeWeights(path, { ...prepared.learns, parameters: final.parameters })
    }
    return trainable
  })

/** SGD's rate where the scenario says none. */
const defaultMoeRate = 0.1

/** A stack of layers of experts, with an MoE schedule. */
const ofMoeLayers = (scenario: MoeTrainingScenario, file: string, options: TrainCommandOptions) =>
  Effect.gen(function* () {
    for (const [option, value] of [
      ["--evaluate-every", options.evaluateEvery],
      ["--plan-from", options.planFrom],
      ["--save", options.save]
    ] as const) {
      if (value === undefined) continue
      const accepted = "a scenario of data-parallel training: layers of experts alone learn no text"
      return yield* new InputError({ file: option, field: "", value: String(value), accepted })
    }
    const { world, model, planned } = yield* prepareMoe(scenario, file, new Loader())
    const steps = options.steps ?? scenario.steps
    const real: MoeModel = {
      ...model,
      dtype: "float32",
      learningRate: model.learningRate ?? defaultMoeRate
    }
    const trainable: Trainable = {
      facts: {
        scenario: scenario.name,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        seed: scenario.seed
      },
      steps,
      begin: ({ record, onStep }) =>
        moeLayerTraining({
          world,
          model: real,
          plan: planned.plan,
          steps,
          onStep,
          capacityBytes: scenario.memory,
          record,
          ...emulatedLinks(world, "ring")
        })
    }
    return trainable
  })

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
  const parameters = result.parameters === undefined ? "" : `, ${result.parameters} parameters`
  const done = stepsDone === steps ? String(steps) : `${stepsDone} of ${steps}`
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${result.ranks} ranks${parameters}, seed ${result.seed}`,
    `${done} steps in ${formatSeconds(seconds)}, ${formatSeconds(seconds / stepsDone)} each; ${Math.round(result.tokensPerSecond)} tokens/s`,
    `training loss ${first?.loss.toFixed(3)} to ${last?.loss.toFixed(3)}`
  ]
  for (const { step, loss } of heldOutLosses)
    lines.push(`held-out loss ${loss.toFixed(3)} after ${step} steps`)
  if (peakBytes !== null) lines.push(`at most ${formatBytes(peakBytes.device)} of device memory on a rank`)
  return `${lines.join("\n")}\n`
}
