// `--checkpoint`, `--checkpoint-every`, `--keep` and `--resume` of a training run: what they ask for, and the checkpoints that come
// of it.
import { existsSync, readdirSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { counted } from "../../core/units.ts"
import { InputError } from "../../core/input-error.ts"
import { checkpointsIn } from "../../scenarios/cli/checkpoint/kept.ts"
import { jsonOf, manifestName, sha256Of, type Manifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { lockOf, lossOf, lossToOthers } from "../../scenarios/cli/folder-lock.ts"
import { version } from "../../scenarios/cli/version.ts"
import type { Scenario } from "../../scenarios/families.ts"
import type { Trainable } from "../../scenarios/trainable.ts"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"
import type { TraceError } from "../../traces/trace-error.ts"
import { CurrentBackend } from "../backend.ts"
import { Checkpoints } from "../checkpoint/checkpoints.ts"
import { clearPartial, lockIn } from "../checkpoint/folder.ts"
import { checkPredecessor, RestoredShards, type Predecessor } from "../checkpoint/resume.ts"
import type { ShardEntry } from "../checkpoint/shard.ts"
import type { ProcessJob } from "../job/processes.ts"

export interface CheckpointCommandOptions {
  readonly checkpoint?: string
  readonly checkpointEvery?: number
  readonly keep?: number
  /** The newest of `checkpoint`, or a checkpoint's folder. */
  readonly resume?: string | true
}

/** What is asked for, and the checkpoint that the run goes on from, if any. */
export interface Asked {
  readonly folder: string
  readonly every: number
  readonly keep: number
  /** The step of the newest checkpoint that the folder had when it was looked at. */
  readonly newestStep: number | undefined
  readonly predecessor: Predecessor | undefined
}

const usualEvery = 100
const usualKeep = 2

/** What a scenario says of checkpoints in vain. */
export const notSaved = (scenario: Scenario, asked: Asked | undefined): ReadonlyArray<string> =>
  asked === undefined && "checkpoint" in scenario && scenario.checkpoint !== undefined
    ? ["checkpoint has no effect without --checkpoint <folder>: nothing is saved"]
    : []

/**
 * Fails for options that need another one; for a folder with checkpoints that nobody wants to go on from, and which this run's
 * would mix with; for a checkpoint that is not this run's.
 */
export const askedFor = (
  { checkpoint, checkpointEvery, keep, resume }: CheckpointCommandOptions,
  { world, steps, continuation, checkpointEvery: scenarioEvery = usualEvery }: Trainable
): Effect.Effect<Asked | undefined, InputError> =>
  Effect.gen(function* () {
    if (checkpoint === undefined) {
      for (const [option, value] of [
        ["--checkpoint-every", checkpointEvery],
        ["--keep", keep],
        ["--resume", resume === true ? "" : resume]
      ] as const) {
        if (value === undefined) continue
        const accepted = "--checkpoint <folder> beside it, where checkpoints are kept"
        return yield* new InputError({ file: option, field: "", value: `"${value}" alone`, accepted })
      }
      return undefined
    }
    // There no checkpoint would be found to go on from, and what is kept inside of it goes when it does.
    if (existsSync(path.join(checkpoint, manifestName)))
      return yield* new InputError({
        file: "--checkpoint",
        field: "",
        value: `${checkpoint}, which is a checkpoint,`,
        accepted: `the folder that it is kept in, ${path.dirname(path.resolve(checkpoint))}, or another; --resume names a checkpoint to go on from`
      })
    const there = yield* Effect.try({
      try: () => checkpointsIn(checkpoint),
      catch: (cause) => refusedFolder(checkpoint, cause)
    })
    const newest = there.at(-1)
    const asked = {
      folder: checkpoint,
      every: checkpointEvery ?? scenarioEvery,
      keep: keep ?? usualKeep,
      newestStep: newest?.step
    }
    if (resume === undefined) {
      if (newest === undefined) return { ...asked, predecessor: undefined }
      return yield* new InputError({
        file: "--checkpoint",
        field: "",
        value: `${checkpoint}, which has a checkpoint of step ${newest.step},`,
        accepted: "--resume beside it to go on from there, or a folder without checkpoints"
      })
    }
    const from = resume === true ? newest?.folder : resume
    // Whatever else is wrong with it, its manifest will tell.
    const inside =
      typeof resume === "string"
        ? Option.getOrUndefined(yield* Effect.option(Effect.try(() => checkpointsIn(resume))))?.at(-1)
        : undefined
    if (inside !== undefined) {
      return yield* new InputError({
        file: "--resume",
        field: "",
        value: `${String(resume)}, a folder of checkpoints,`,
        accepted: `one of them, such as the newest: ${inside.folder}`
      })
    }
    if (from === undefined) return { ...asked, predecessor: undefined }
    if (newest !== undefined && path.resolve(from) !== path.resolve(newest.folder)) {
      return yield* new InputError({
        file: "--resume",
        field: "",
        value: from,
        accepted: `${newest.folder}, the newest of --checkpoint; or another --checkpoint folder, whose checkpoints this run's are not to mix with`
      })
    }
    const successor = { tandem: version(), ranks: world.size, steps, continuation }
    return { ...asked, predecessor: yield* checkPredecessor(from, successor) }
  })

/** Files of the checkpoints that are there already. */
export const filesThere = ({ folder, predecessor }: Asked): ReadonlyArray<string> =>
  [...checkpointsIn(folder), ...(predecessor === undefined ? [] : [predecessor])].flatMap((one) => {
    try {
      return readdirSync(one.folder).map((name) => path.join(one.folder, name))
    } catch {
      // Another run may write there until this one has the lock, and removes its older ones; another user's may be closed.
      return []
    }
  })

/** Fails where another run has written between the look at the folder and its lock: what was found there holds no more. */
const requireUnchanged = (folder: string, newestStep: number | undefined): Effect.Effect<void, InputError> =>
  Effect.gen(function* () {
    const there = yield* Effect.try({
      try: () => checkpointsIn(folder),
      catch: (cause) => refusedFolder(folder, cause)
    })
    const step = there.at(-1)?.step
    if (step === newestStep) return
    const told = (of: number | undefined): string => (of === undefined ? "none" : `that of step ${of}`)
    return yield* new InputError({
      file: "--checkpoint",
      field: "",
      value: `${folder}, whose newest checkpoint became ${told(step)} while this run began (it was ${told(newestStep)}): another run writes there,`,
      accepted: "a folder of this run's own, or the same command again when the other run has ended"
    })
  })

const refusedFolder = (folder: string, cause: unknown): InputError =>
  new InputError({
    file: "--checkpoint",
    field: "",
    value: `${folder} (${whyNotWritable(folder, cause)})`,
    accepted: "a folder that can be read and written, or made"
  })

interface Surroundings {
  readonly seed: number
  /** The job of which this process is one rank; undefined where all ranks are here. */
  readonly job: ProcessJob | undefined
  /** For people: what is saved, and what could not be. */
  readonly tell: (line: string) => void
  readonly warn: (line: string) => void
}

/** The checkpoints of a run of this process's ranks, all ranks of a job having come here. */
export const openCheckpoints = (
  { folder, every, keep, newestStep, predecessor }: Asked,
  { world, steps, continuation }: Trainable,
  { seed, job, tell, warn }: Surroundings
): Effect.Effect<Checkpoints, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const isFirst = job === undefined || job.rank === 0
    const lock = lockIn(folder)
    /** Steps of the checkpoints that this run found and has written. */
    const own = new Set<number>()
    let text = ""
    if (isFirst) {
      const prepared = (prepare: (folder: string) => void) =>
        Effect.try({ try: () => prepare(folder), catch: (cause) => refusedFolder(folder, cause) })
      yield* prepared(makeFolder)
      const locked = { folder, option: "--checkpoint", what: "checkpoints", touched: true }
      text = yield* lockOf(lock, {
        ...locked,
        mayRegain: () => stepsIn(folder).every((step) => own.has(step))
      })
      yield* requireUnchanged(folder, newestStep)
      yield* prepared(() => stepsIn(folder).forEach((step) => own.add(step)))
      yield* prepared(clearPartial)
    }
    const here = job === undefined ? world.all.ranks : [job.rank]
    const shards = predecessor === undefined ? undefined : yield* restored(predecessor, here)
    // Nobody writes before what an earlier run left there is gone.
    const [held] = job === undefined ? [text] : yield* job.exchange(text)
    const backend = yield* CurrentBackend
    if (predecessor !== undefined && isFirst) {
      tell(`goes on after step ${predecessor.manifest.step}, from ${predecessor.folder}`)
      for (const line of otherwise(predecessor, world.size, backend)) warn(line)
    }
    const common = {
      format: "tandem-checkpoint",
      formatVersion: 1,
      tandem: version(),
      backend,
      run: jsonOf(continuation.run) as Manifest["run"],
      plan: { sha256: sha256Of(continuation.plan), described: jsonOf(continuation.plan) as null }
    } as const
    const source = jsonOf(continuation.data) as null
    return new Checkpoints({
      folder,
      every,
      keep,
      ranks: world.size,
      here,
      links: job,
      steps,
      lost: () => (isFirst ? lossOf(lock) : lossToOthers(lock, held!)),
      ...(shards === undefined
        ? {}
        : {
            resumed: {
              from: predecessor!.manifest.step,
              restored: (rank, tensor) => shards.valuesOf(rank, tensor)
            }
          }),
      manifestAfter: (step: number, parts: ReadonlyArray<ShardEntry>) => ({
        ...common,
        step,
        ranks: world.size,
        data: { source, position: step },
        random: { seed, position: step },
        shards: parts
      }),
      onWritten: ({ step, folder: written, failure, unremoved }) => {
        tell(
          failure === undefined
            ? `saved ${written ?? ""}`
            : `the checkpoint of step ${step} could not be written, and what was there stays: ${failure}`
        )
        if (written !== undefined) own.add(step)
        if (unremoved !== undefined) warn(`older checkpoints could not be removed: ${unremoved}`)
      }
    })
  })

const stepsIn = (folder: string): ReadonlyArray<number> => checkpointsIn(folder).map(({ step }) => step)

const restored = (
  predecessor: Predecessor,
  here: ReadonlyArray<number>
): Effect.Effect<RestoredShards, InputError | TraceError, Scope.Scope> =>
  Effect.acquireRelease(RestoredShards.open(predecessor, here), (shards) => Effect.sync(() => shards.close()))

/** How the run goes on otherwise than the one that wrote the checkpoint. */
const otherwise = ({ manifest }: Predecessor, ranks: number, backend: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  if (manifest.backend !== backend)
    lines.push(
      `the checkpoint was written on ${manifest.backend}: ${backend} goes on, but not bit for bit as that would have`
    )
  if (manifest.ranks > ranks)
    lines.push(
      `${counted(manifest.ranks, "rank")} wrote the checkpoint: what ranks from ${ranks} have learnt since they last averaged is left behind`
    )
  if (manifest.ranks < ranks)
    lines.push(
      `${counted(manifest.ranks, "rank")} wrote the checkpoint: ranks from ${manifest.ranks} begin as copies of the first ones`
    )
  return lines
}
