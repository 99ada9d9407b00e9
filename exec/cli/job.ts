// How commands of `exec` run as a job of several processes: started here, or one of those that a launcher has started.
import { createHash } from "node:crypto"
import { networkInterfaces } from "node:os"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { InputError } from "../../core/input-error.ts"
import type { World } from "../../core/world.ts"
import type { InputErrors } from "../../scenarios/file/input-errors.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario, type Override } from "../../scenarios/scenario-file.ts"
import { resolveWorld } from "../../scenarios/world.ts"
import { execute as runEffect, type Outcome } from "../../scenarios/cli/execute.ts"
import { offerOut, writeError } from "../../scenarios/cli/output.ts"
import { version } from "../../scenarios/cli/version.ts"
import { fileDigest } from "../../scenarios/cli/checkpoint/file-digest.ts"
import { statOf } from "../../traces/stat-of.ts"
import { addressIn, placeIn, tasksWithoutSrun, transportIn, type Place } from "../job/environment.ts"
import { usualRendezvousTimeout, type TransportWish } from "../job/meeting.ts"
import { CurrentBackend } from "../backend.ts"
import { nodeWarnings } from "../job/hosts.ts"
import { ProcessJob } from "../job/processes.ts"
import type { RankLost } from "../../core/machine/machine.ts"
import type { NoRendezvous } from "../job/rendezvous.ts"
import { secretIn } from "../job/secret.ts"
import { spawnJob } from "../job/spawn.ts"
import { runCommand, warnOf } from "./command.ts"

export interface JobOptions {
  /** Start so many processes of this command on this host. */
  readonly processes?: number
  /** What carries messages between processes; default what the environment says. */
  readonly transport?: TransportWish
  /** Seconds to wait for the others; `usualRendezvousTimeout` where it is not said. */
  readonly rendezvousTimeout?: number
}

/** Runs a command on a scenario to its exit code: as the processes of a job, if its options ask to start them here, or as one process. */
export const runAsJob = async (
  file: string,
  options: JobOptions & { readonly backend?: string; readonly set: ReadonlyArray<Override> },
  command: Effect.Effect<Outcome, Error>
): Promise<number> => {
  // Signals are for the processes, which end as they will: `execute` would not wait for them.
  const started = await Effect.runPromiseExit(startedHere(file, options))
  if (Exit.isFailure(started)) return runEffect(Effect.failCause(started.cause), "exec")
  return started.value ?? runCommand(command, options.backend)
}

/** Starts the job's processes, if that is what the command line asks for; their exit code. */
const startedHere = (
  file: string,
  { processes, set }: JobOptions & { readonly set: ReadonlyArray<Override> }
): Effect.Effect<number | undefined, InputError | InputErrors | NoRendezvous> =>
  Effect.gen(function* () {
    if (processes === undefined) return undefined
    // A mistyped number would start as many processes, each to find that out by itself.
    const { scenario, locate } = yield* loadLocatedScenario(file, set)
    if ("world" in scenario) {
      const { size } = yield* Effect.mapError(resolveWorld(scenario.world, file, new Loader()), locate)
      yield* requireSize({ launcher: undefined, size: processes }, size, file)
    }
    return yield* spawnJob({
      processes,
      command: withoutProcesses(process.argv.slice(1)),
      variables: process.env,
      write: (stream, text) => (stream === "out" ? offerOut(text) : writeError(text))
    })
  })

/** The command line of one of the processes. */
const withoutProcesses = (argv: ReadonlyArray<string>): ReadonlyArray<string> =>
  argv.filter((word, i) => !/^--processes(?:=|$)/u.test(word) && argv[i - 1] !== "--processes")

/** What the processes of a job do together. */
interface Together {
  /** One for each process. */
  readonly ranks: number
  /** The scenario, for messages. */
  readonly file: string
  /** What must be the same in all. */
  readonly plan: unknown
  /** Files that are read beside the scenario, by what people call them: hosts may have others of one name. */
  readonly files: ReadonlyArray<{ readonly title: string; readonly file: string }>
}

/** Files that options name. */
export const filesOfOptions = (options: Readonly<Record<string, string | undefined>>): Together["files"] =>
  Object.entries(options).flatMap(([title, file]) => (file === undefined ? [] : [{ title, file }]))

/** Runs `use` as one process of the job that a launcher has started; alone, without a job, where none has. */
export const perhapsInJob = <A, E>(
  options: JobOptions,
  together: Together,
  use: (job: ProcessJob | undefined) => Effect.Effect<A, E>
): Effect.Effect<A, E | InputError | NoRendezvous | RankLost> =>
  Effect.flatMap(placeHere, (place): Effect.Effect<A, E | InputError | NoRendezvous | RankLost> => {
    const { ranks, file } = together
    if (place === undefined) {
      const warnings = [
        ["--transport", options.transport],
        ["--rendezvous-timeout", options.rendezvousTimeout]
      ].flatMap(([option, value]) =>
        value === undefined ? [] : [`${option} has no effect: all ranks are in this process`]
      )
      const tasks = tasksWithoutSrun(process.env)
      if (tasks !== undefined && ranks > 1)
        warnings.push(
          `this Slurm job has ${tasks} tasks, but srun has not started this: all ${ranks} ranks are threads of one process here; "srun node_modules/.bin/tandem-exec ..." starts one for each task`
        )
      return Effect.andThen(warnOf(warnings), use(undefined))
    }
    return Effect.andThen(requireSize(place, ranks, file), inJob(place, options, together, use))
  })

/** Between processes bytes take the way that there is, whatever limits and nodes the scenario states. */
export const warnOfLinks = (world: World, { hosts }: ProcessJob): Effect.Effect<void> => {
  const { intra, inter, wan } = world.links
  const wans = wan === undefined ? [] : "pairs" in wan ? wan.pairs.map(({ link }) => link) : [wan]
  const limited = [intra, inter, ...wans].some(
    (link) => link.bytesPerSecond < Infinity || link.latencySeconds > 0
  )
  return warnOf([
    ...(limited ? ["links have no effect between processes: real ones are as fast as they are"] : []),
    ...nodeWarnings(world, hosts)
  ])
}

/** The place of this process in a job that a launcher has started; undefined where it is alone. */
export const placeHere: Effect.Effect<Place | undefined, InputError> = Effect.map(
  placeIn(process.env),
  (place) => (place === undefined || place.size === 1 ? undefined : place)
)

/** What processes of one run have been told alike: where it differs, only so much is known. */
const scenarioAndOptions = "the digest of scenario and options"

const inJob = <A, E>(
  place: Place,
  { rendezvousTimeout = usualRendezvousTimeout, transport: wish }: JobOptions,
  { plan, files }: Together,
  use: (job: ProcessJob) => Effect.Effect<A, E>
): Effect.Effect<A, E | InputError | NoRendezvous | RankLost> =>
  Effect.gen(function* () {
    const secret = yield* secretIn(process.env)
    const host = yield* addressIn(process.env, networkInterfaces())
    const backend = yield* CurrentBackend
    const alike: Record<string, string> = {
      version: version(),
      backend,
      [scenarioAndOptions]: digestOf(plan)
    }
    for (const { title, file } of files) {
      // What is no file is the plan's: a name that means something to whoever reads it.
      if (statOf(file)?.isFile() !== true) continue
      const { bytes, sha256 } = yield* fileDigest(file)
      alike[title] = `${sha256.slice(0, 16)} of ${bytes} B`
    }
    const wished = wish ?? (yield* transportIn(process.env))
    // Between GPUs tensors go by NCCL, and the mesh carries little but words.
    const byNccl = wished === "auto" && backend === "cuda"
    const transport = byNccl ? "tcp" : wished
    const options = { place, secret, alike, host, transport, timeoutSeconds: rendezvousTimeout }
    return yield* ProcessJob.use(options, (job) => {
      if (job.rank === 0) {
        const { name, because } = job.mesh.transport!
        writeError(`exec: a job of ${job.size} processes, started by ${place.launcher}\n`)
        if (!byNccl) writeError(`exec: messages go by ${name}: ${because}\n`)
      }
      return use(job)
    })
  })

export const digestOf = (plan: unknown): string =>
  createHash("sha256").update(JSON.stringify(plan)).digest("hex").slice(0, 16)

/** Fails where the job has not as many processes as the scenario ranks. */
const requireSize = (
  { size, launcher }: Pick<Place, "size"> & { readonly launcher: string | undefined },
  ranks: number,
  file: string
): Effect.Effect<void, InputError> =>
  size === ranks
    ? Effect.void
    : Effect.fail(
        new InputError({
          file,
          field: "ranks",
          value: String(ranks),
          accepted: `${size}, for ${launcher === undefined ? `--processes ${size} starts` : `${launcher} has started`} ${size} processes, one for each rank`
        })
      )
