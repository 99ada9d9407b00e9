// exec train: trains a scenario's model for real, with any data-parallel algorithm or MoE schedule, on ranks that are threads of
// this process or processes of their own.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { InputError } from "../../core/input-error.ts"
import { formatBytes, formatSeconds, counted } from "../../core/units.ts"
import { json, toldThough } from "../../scenarios/cli/execute.ts"
import { offerOut, writeError } from "../../scenarios/cli/output.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { filesNamedIn, filesOf } from "../../scenarios/named-files.ts"
import { terminalProgress } from "../../scenarios/cli/progress.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { families, familyOf, type Scenario } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario, type Override } from "../../scenarios/scenario-file.ts"
import type { Trainable } from "../../scenarios/trainable.ts"
import { chromeTrace } from "../../traces/perfetto.ts"
import { TraceError } from "../../traces/trace-error.ts"
import { writeWeights, type SavedWeights } from "../../traces/weights-file.ts"
import type { Checkpoints } from "../checkpoint/checkpoints.ts"
import { training, type Learnt, type LossScaleAtEnd } from "../train/train.ts"
import type { ProcessJob } from "../job/processes.ts"
import type { Replays } from "../native-addon.ts"
import {
  askedFor,
  notSaved,
  filesThere,
  openCheckpoints,
  type Asked,
  type CheckpointCommandOptions
} from "./checkpoints.ts"
import { CurrentWarnings, requireDevice, warn, warnOf } from "./command.ts"
import { filesOfOptions, perhapsInJob, runAsJob, warnOfLinks, type JobOptions } from "./job.ts"
import { emulatedLinks } from "./links.ts"

export interface TrainCommandOptions extends JobOptions, CheckpointCommandOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly steps?: number
  readonly text?: string
  readonly tokens?: string
  readonly heldOutTokens?: string
  readonly seed?: number
  readonly evaluateEvery?: number
  readonly planFrom?: string
  readonly weights?: string
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
  /** Trainable numbers, tied weights once, without what pads a vocabulary; of a model that learns a text. */
  readonly parameters?: number
  /** Steps that were taken before, by the run that this one goes on from. */
  readonly resumedAfter?: number
  /** The last checkpoint that was written; null where none was. */
  readonly checkpoint?: string | null
  /** Steps asked for; fewer are done when the run was interrupted. */
  readonly steps: number
  /** Tokens to train on, and held out; where a text is learnt. */
  readonly text?: { readonly trainTokens: number; readonly heldOutTokens: number }
  /** The most that a rank's tensors took; null when the run was interrupted. */
  readonly peakBytes: { readonly device: number; readonly host: number } | null
  /** What standard error warned of: what has no effect on a real run, and what came up on the way. */
  readonly warnings: ReadonlyArray<string>
  /** Ops that came again and were launched as a whole; where the backend has such a thing, and not after an interruption. */
  readonly graphs?: Replays
}

export const trainCommand = (file: string, options: TrainCommandOptions): Promise<number> =>
  runAsJob(file, options, trainedFrom(file, options))

const trainedFrom = (file: string, options: TrainCommandOptions) =>
  Effect.gen(function* () {
    const { scenario, locate } = yield* loadLocatedScenario(file, overrides(options))
    const trainable = yield* trainableOf(scenario, file, options).pipe(Effect.mapError(locate))
    const asked = yield* askedFor(options, trainable)
    const outputs = [
      ["--out", options.out],
      ["--timeline", options.timeline],
      ["--save", options.save]
    ] as const
    yield* requireApart(outputs, [
      ...filesOf(scenario, file),
      ...[options.planFrom, options.weights].filter((one) => one !== undefined),
      ...(asked === undefined ? [] : filesThere(asked))
    ])
    const { continuation, steps, world } = trainable
    const { evaluateEvery, weights, planFrom, timeline } = options
    const plan = {
      scenario,
      steps,
      evaluateEvery,
      continuation,
      timed: timeline !== undefined,
      every: asked?.every,
      from: asked?.predecessor?.manifest.sha256
    }
    const files = [
      // What is learnt is in `continuation`: of a large corpus, digests of some of it.
      ...filesNamedIn(scenario, file).filter(({ field }) => field[0] !== "training"),
      ...filesOfOptions({ "--weights": weights, "--plan-from": planFrom })
    ]
    return yield* perhapsInJob(options, { ranks: world.size, file, plan, files }, (job) =>
      Effect.scoped(trained(scenario, trainable, options, asked, job))
    )
  })

/** Trains, and tells the result; in a job of processes, that is rank 0's to do. */
const trained = (
  scenario: Scenario,
  trainable: Trainable,
  options: TrainCommandOptions,
  asked: Asked | undefined,
  job: ProcessJob | undefined
) =>
  Effect.gen(function* () {
    const { world, steps, parameters, text: learnt } = trainable
    const isFirst = job === undefined || job.rank === 0
    if (options.save !== undefined && job !== undefined && (trainable.holders ?? 1) > 1) {
      const accepted = `no --save in a job of processes, where ${trainable.holders} ranks hold the model in parts; --checkpoint keeps all of them`
      return yield* new InputError({ file: "--save", field: "", value: options.save, accepted })
    }
    yield* requireDevice
    const warnings = yield* CurrentWarnings
    if (isFirst) {
      yield* warn(scenario)
      yield* warnOf(notSaved(scenario, asked))
      if (job !== undefined) yield* warnOfLinks(world, job)
    }
    const checkpoints =
      asked === undefined
        ? undefined
        : yield* openCheckpoints(asked, trainable, {
            seed: scenario.seed,
            job,
            tell: (line) => writeError(`exec: ${line}\n`),
            warn: (line) => warnings.tell([line])
          })
    const progress = terminalProgress("train")
    let weights: SavedWeights | undefined
    const { run, learnt: learning } = training(trainable, {
      record: options.timeline !== undefined,
      snapshots: checkpoints,
      onStep: ({ step, loss }) => progress.update(step, steps, `loss ${loss.toFixed(3)}`),
      atEnd: ({ valuesOf }) => {
        if (options.save !== undefined && isFirst && checkpoints?.stopsAfter === undefined)
          weights = trainable.weights?.(valuesOf)
      },
      ...(job === undefined ? emulatedLinks(world, trainable.collectives) : { processes: job })
    })
    const told = (peakBytes: TrainResult["peakBytes"], graphs?: Replays): TrainResult => ({
      scenario: scenario.name,
      algorithm: scenario.algorithm.name,
      ranks: world.size,
      seed: scenario.seed,
      ...(parameters === undefined ? {} : { parameters }),
      ...(learnt === undefined ? {} : { text: learnt }),
      ...(checkpoints === undefined
        ? {}
        : { resumedAfter: checkpoints.from, checkpoint: checkpoints.newest ?? null }),
      steps,
      peakBytes,
      ...learning(),
      warnings: warnings.told,
      ...(graphs === undefined ? {} : { graphs })
    })
    const kept = (result: TrainResult) =>
      options.out === undefined ? Effect.void : writeTextFile(options.out, [json(result)])
    const text = (result: TrainResult) => (options.json === true ? json(result) : print(result))

    const ended = yield* endingAtCheckpoint(run, checkpoints).pipe(
      Effect.ensuring(Effect.sync(progress.end)),
      Effect.onInterrupt(() =>
        Effect.suspend(() => {
          const result = told(null)
          if (result.stepsDone === 0 || !isFirst) return Effect.void
          writeError(`exec: interrupted after ${result.stepsDone} of ${steps} steps\n`)
          return Effect.ensuring(
            Effect.catch(kept(result), (error) => Effect.sync(() => writeError(`exec: ${error.message}\n`))),
            Effect.sync(() => offerOut(text(result)))
          )
        })
      )
    )
    const stoppedAfter = checkpoints?.stopsAfter
    if (!isFirst) return { text: "", ok: stoppedAfter === undefined }
    if (stoppedAfter !== undefined)
      writeError(`exec: stopped after ${stoppedAfter} of ${steps} steps: a process of the job was asked to
`)
    const most = (place: "device" | "host") =>
      Math.max(...ended.ranks.map(({ peakBytes }) => peakBytes[place]))
    const { replays } = ended
    const result = told({ device: most("device"), host: most("host") }, replays)
    const diverged = divergenceOf(result)
    if (diverged !== undefined) writeError(`exec: training diverged: ${diverged}\n`)
    const outcome = {
      text: text(result),
      ok: stoppedAfter === undefined && checkpoints?.last?.failure === undefined && diverged === undefined
    }
    const files = Effect.gen(function* () {
      yield* kept(result)
      if (options.timeline !== undefined && ended.timeline !== undefined) {
        const about: Record<string, string> = replays === undefined ? {} : { graphs: replays.state }
        yield* writeTextFile(options.timeline, chromeTrace(ended.timeline, undefined, about))
        writeError(`exec: wrote ${options.timeline}; open it in https://ui.perfetto.dev\n`)
      }
      if (options.save !== undefined && weights !== undefined) yield* writeWeights(options.save, weights)
    })
    return yield* toldThough(outcome, files)
  })

/** What says that nothing useful was learnt; undefined of a run that ends with finite losses, whatever came between. */
const divergenceOf = ({ losses, heldOutLosses }: TrainResult): string | undefined => {
  if (Number.isFinite(losses.at(-1)?.loss ?? 0)) {
    // The last step may be what has spoilt the parameters.
    const { step, loss } = heldOutLosses.at(-1) ?? { step: 0, loss: 0 }
    return Number.isFinite(loss) ? undefined : `the held-out loss is ${loss} after step ${step}`
  }
  const { step, loss } = losses[losses.findLastIndex((one) => Number.isFinite(one.loss)) + 1]!
  return `the loss is ${loss} from step ${step} on`
}

/** The run; asked to end, it ends after a step that all ranks can still reach, with a checkpoint of it. */
const endingAtCheckpoint = <A, E>(
  run: Effect.Effect<A, E>,
  checkpoints: Checkpoints | undefined
): Effect.Effect<A, E | InputError | TraceError> => {
  // What a file does not hold is found when a tensor is made of it.
  const readable = Effect.catchDefect(run, (defect) =>
    defect instanceof InputError || defect instanceof TraceError ? Effect.fail(defect) : Effect.die(defect)
  )
  if (checkpoints === undefined) return readable
  return Effect.flatMap(Effect.forkDetach(readable), (fiber) =>
    Effect.onInterrupt(Fiber.join(fiber), () =>
      Effect.suspend(() => {
        checkpoints.requestStop()
        return Fiber.await(fiber)
      })
    )
  )
}

/** What the scenario's family trains; saving needs weights that a file can hold. */
const trainableOf = (
  scenario: Scenario,
  file: string,
  options: TrainCommandOptions
): Effect.Effect<Trainable, InputError> =>
  Effect.gen(function* () {
    const family = familyOf(scenario)
    if (family.train === undefined) {
      const able = families.filter((one) => "train" in one).map(({ task }) => task)
      const accepted = `${able.join(" or ")}; exec generate runs the others`
      return yield* new InputError({ file, field: "task", value: scenario.task, accepted })
    }
    const trainable = yield* family.train(scenario, file, { loader: new Loader() }, options)
    if (options.save !== undefined && trainable.weights === undefined) {
      const accepted = "a scenario of data-parallel training: layers of experts alone learn no text"
      return yield* new InputError({ file: "--save", field: "", value: options.save, accepted })
    }
    return trainable
  })

/** Options that are fields of the scenario; files are named as on a command line. */
const overrides = ({
  set,
  text,
  tokens,
  heldOutTokens,
  seed
}: TrainCommandOptions): ReadonlyArray<Override> => [
  ...set,
  ...(
    [
      ["--text", "text", text],
      ["--tokens", "tokens", tokens],
      ["--held-out-tokens", "heldOutTokens", heldOutTokens]
    ] as const
  ).flatMap(([option, field, file]) =>
    file === undefined
      ? []
      : { text: `training.${field}=${JSON.stringify(path.resolve(file))}`, option: `${option} ${file}` }
  ),
  ...(seed === undefined ? [] : [{ text: `seed=${seed}`, option: `--seed ${seed}` }])
]

/** Ranks that average gradients have one scale; others may differ. */
const scaleLine = (scales: ReadonlyArray<LossScaleAtEnd>): string => {
  const between = (of: (one: LossScaleAtEnd) => number): string => {
    const all = scales.map(of)
    const [least, most] = [Math.min(...all), Math.max(...all)]
    return least === most ? String(least) : `${least} to ${most}, by ranks`
  }
  const most = Math.max(...scales.map(({ skippedSteps }) => skippedSteps))
  return `loss scale ${between(({ scale }) => scale)}; ${between(({ skippedSteps }) => skippedSteps)} step${most === 1 ? "" : "s"} skipped for overflow`
}

const print = (result: TrainResult): string => {
  const { losses, heldOutLosses, seconds, stepsDone, steps, peakBytes, resumedAfter = 0 } = result
  const [first, last] = [losses[0], losses.at(-1)]
  const parameters = result.parameters === undefined ? "" : `, ${result.parameters} parameters`
  const done = `${stepsDone === steps ? steps : `${stepsDone} of ${steps}`} step${steps === 1 ? "" : "s"}`
  const taken = stepsDone - resumedAfter
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${counted(result.ranks, "rank")}${parameters}, seed ${result.seed}`,
    ...(first === undefined || last === undefined
      ? [`${done}, none of them by this run`]
      : [
          `${done}${resumedAfter === 0 ? "" : `, ${taken} of them`} in ${formatSeconds(seconds)}, ${formatSeconds(seconds / taken)} each; ${Math.round(result.tokensPerSecond)} tokens/s`,
          `training loss ${first.loss.toFixed(3)} to ${last.loss.toFixed(3)}`
        ])
  ]
  if (result.lossScales !== undefined) lines.push(scaleLine(result.lossScales))
  for (const { step, loss } of heldOutLosses)
    lines.push(`held-out loss ${loss.toFixed(3)} after ${counted(step, "step")}`)
  if (peakBytes !== null) lines.push(`at most ${formatBytes(peakBytes.device)} of device memory on a rank`)
  return `${lines.join("\n")}\n`
}
