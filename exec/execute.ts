// Runs a program for real on every rank of this process, until all have finished: one fiber per rank, one native session.
// The counterpart of sim/simulate.ts; knows nothing of scenarios, files or which algorithm it runs.
import * as Effect from "effect/Effect"
import {
  defaultLookAhead,
  drained,
  Machine,
  RankLost,
  type InitialValues,
  type MachineError,
  type Program,
  type RankOutcome
} from "../core/machine/machine.ts"
import type { Op, OpId } from "../core/machine/op.ts"
import type { PendingOptions } from "../core/machine/pending.ts"
import { Recorder } from "../core/machine/recorder.ts"
import { joinTimelines, type OpLog, type Timeline } from "../core/machine/timeline.ts"
import type { Place, Tensor, TensorData } from "../core/machine/tensor.ts"
import type { World } from "../core/world.ts"
import { CurrentBackend } from "./backend.ts"
import {
  between,
  CurrentCoreWatch,
  threadTimes,
  together,
  type CoreTimes,
  type ThreadTimes
} from "./core-waits.ts"
import { InProcessJob } from "./job/in-process.ts"
import type { Job, Links, MakeJob } from "./job/job.ts"
import type { Replays } from "./native-addon.ts"
import { NativeSession, type Bus, type PrepareOptions, type SessionOptions } from "./native.ts"
import { ExecutedRank, type Shared } from "./rank-machine.ts"

/** What is run for real: a program on the ranks of a job. */
export interface Execution<A> {
  readonly world: World
  /** Run once for each rank. */
  readonly program: Program<A>
  /** Where the ranks are; default: all in this process. */
  readonly job?: MakeJob | undefined
  /** Name of the native backend, and settings of that backend alone; by default `CurrentBackend`. */
  readonly backend?: string | undefined
  readonly settings?: Readonly<Record<string, number>> | undefined
  /** Bytes of each rank's memories; default, and at most, what the device has for it. */
  readonly capacityBytes?: Partial<Readonly<Record<Place, number>>> | undefined
  readonly lookAhead?: number
  /** Keep op logs and times. */
  readonly record?: boolean
  readonly initial?: InitialValues | undefined
  /** Copies between host and device go at most so fast. */
  readonly h2d?: Bus | undefined
  readonly d2h?: Bus | undefined
  /** Bytes per second of emulated links, which `prepare` may send collectives across. */
  readonly linkBytesPerSecond?: ReadonlyArray<number> | undefined
  /** What an op is told beyond its kernel. */
  readonly prepare?: ((rank: number, op: Op) => PrepareOptions | undefined) | undefined
  /** Ops of which it is kept what they leave in the tensors that they write; `Ended.resultsOf` has it. Default none. */
  readonly keeps?: ((op: Op) => boolean) | undefined
  /** Of these, the ones of which it is also kept what they find in the tensors that they read; `Ended.inputsOf` has it. Default none. */
  readonly keepsInputs?: ((op: Op) => boolean) | undefined
  /** Opens the native session; for tests that break it. */
  readonly open?: ((options: SessionOptions) => NativeSession) | undefined
  /** Places in each rank's ring of ops under way, at first. For tests. */
  readonly ring?: PendingOptions["capacity"]
}

/** What a rank's program came to, and after how many steps. */
export interface ExecutedOutcome<A> extends RankOutcome<A> {
  readonly steps: number
}

/** In a job of processes: of all ranks at rank 0, of its own elsewhere. */
export interface ExecutionResult<A> {
  readonly ranks: ReadonlyArray<ExecutedOutcome<A>>
  /** From the moment when all ranks begin to the end of the last op. */
  readonly makespanSeconds: number
  readonly timeline: Timeline | undefined
  readonly opLogs: ReadonlyArray<OpLog>
  /** By how much times of different ranks may be off against each other: 0 in one process. */
  readonly clockErrorSeconds: number
  /** Bytes of each rank's memories: what was asked for, or what the device has. */
  readonly capacityBytes: Readonly<Record<Place, number>>
  /** Of its threads while it ran, where anybody watches (`CurrentCoreWatch`) and the system says. */
  readonly coreTimes?: CoreTimes | undefined
  /** Of this process: ops that came again and were launched as a whole; undefined where the backend has no such thing. */
  readonly replays?: Replays | undefined
}

/** A run that has ended, while its tensors still hold their values. */
export interface Ended<A> extends ExecutionResult<A> {
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
  /** What an op of a rank left in the tensors that it writes, in their order; undefined where that was not kept. */
  readonly resultsOf: (rank: number, op: OpId) => ReadonlyArray<TensorData> | undefined
  /** What it found in those that it reads; undefined where that was not kept. */
  readonly inputsOf: (rank: number, op: OpId) => ReadonlyArray<TensorData> | undefined
}

/** Runs the program on every rank until all have finished. */
export const execute = <A>(execution: Execution<A>): Effect.Effect<ExecutionResult<A>, MachineError> =>
  executeThen(execution, resultOf)

/** What is left of a run when its tensors are gone. */
export const resultOf = <A>(ended: Ended<A>): ExecutionResult<A> => {
  const { valuesOf: _, resultsOf: __, inputsOf: ___, ...result } = ended
  return result
}

/**
 * As `execute`; `then` sees the run while its tensors can still be looked at.
 * Throws Error with reason and remedy when the native addon is missing.
 */
export const executeThen = <A, B>(
  execution: Execution<A>,
  then: (ended: Ended<A>) => B
): Effect.Effect<B, MachineError> =>
  Effect.gen(function* () {
    const backend = yield* CurrentBackend
    const watch = yield* CurrentCoreWatch
    return yield* Effect.acquireUseRelease(
      Effect.sync(() => Run.open({ backend, ...execution }, watch !== undefined)),
      (run) =>
        Effect.map(run.toEnd, (ended) => {
          watch?.ran(ended.coreTimes)
          return then(ended)
        }),
      (run) => Effect.sync(() => run.close())
    )
  })

/** A signal to a whole job comes to some of its processes sooner than to others. Assumed: by no more than so. */
const signalTravelsMillis = 1000

/** This process's clock, and how it stands to that of rank 0, seconds. */
const clockAt = (links: Links) =>
  Effect.map(links.clockOffset, ({ seconds, errorSeconds }) => ({
    own: links.mesh.nowNanoseconds * 1e-9,
    offset: seconds,
    error: errorSeconds
  }))

const timesChanged = (timeline: Timeline, change: (seconds: number) => number): Timeline => ({
  ...timeline,
  startSeconds: timeline.startSeconds.map(change),
  endSeconds: timeline.endSeconds.map(change)
})

class Run<A> {
  readonly #execution: Execution<A>
  readonly #session: NativeSession
  readonly #job: Job
  readonly #recorder: Recorder | undefined
  readonly #machines: ReadonlyArray<ExecutedRank>
  readonly #capacityBytes: Readonly<Record<Place, number>>
  #originSeconds: number | undefined
  /** When all ranks began, where cores are watched. */
  #threadsBefore: ThreadTimes | undefined

  /** Throws what opening throws, and leaves nothing open then. */
  static open<A>(execution: Execution<A>, watched: boolean): Run<A> {
    const { world, capacityBytes = {}, backend, settings, h2d, d2h, linkBytesPerSecond } = execution
    const job: Job = execution.job?.(world) ?? new InProcessJob(world)
    const session = (execution.open ?? NativeSession.open)({
      ranks: job.ranks.length,
      mesh: job.links?.mesh,
      localRank: job.links?.localRank,
      ...(backend === undefined ? {} : { backend }),
      ...(settings === undefined ? {} : { settings }),
      ...(capacityBytes.device === undefined ? {} : { deviceBytes: capacityBytes.device }),
      ...(capacityBytes.host === undefined ? {} : { hostBytes: capacityBytes.host }),
      ...(h2d === undefined ? {} : { h2d }),
      ...(d2h === undefined ? {} : { d2h }),
      ...(linkBytesPerSecond === undefined ? {} : { linkBytesPerSecond }),
      timed: execution.record ?? false
    })
    try {
      return new Run(execution, job, session, watched)
    } catch (error) {
      session.close()
      throw error
    }
  }

  private constructor(execution: Execution<A>, job: Job, session: NativeSession, watched: boolean) {
    const { world, record = false } = execution
    this.#execution = execution
    this.#job = job
    this.#session = session
    this.#recorder = record ? new Recorder(job.ranks) : undefined
    job.gate.whenOpen(() => {
      if (watched) this.#threadsBefore = threadTimes()
      this.#originSeconds = session.nowSeconds
    })
    const shared: Shared = {
      session,
      prepare: execution.prepare,
      keeps: execution.keeps,
      keepsInputs: execution.keepsInputs,
      gate: job.gate,
      nowSeconds: () => this.#nowSeconds()
    }
    const native = session.ranks[0]!
    this.#capacityBytes = {
      device: native.capacityBytes("device"),
      host: native.capacityBytes("host")
    }
    this.#machines = job.ranks.map(
      (rank, index) =>
        new ExecutedRank(shared, session.ranks[index]!, {
          rank,
          world,
          order: job.order,
          recorder: this.#recorder,
          lookAhead: execution.lookAhead ?? defaultLookAhead,
          initial: execution.initial ?? (() => undefined),
          capacityBytes: this.#capacityBytes,
          pending: { capacity: execution.ring, keepsEdges: true }
        })
    )
  }

  get toEnd(): Effect.Effect<Ended<A>, MachineError> {
    const programs = this.#machines.map((machine) =>
      Effect.provideService(drained(this.#execution.program), Machine, machine.rank.service).pipe(
        Effect.tap(() =>
          Effect.andThen(
            machine.kept,
            Effect.sync(() => machine.finish())
          )
        )
      )
    )
    const { links } = this.#job
    const ran = Effect.map(Effect.all(programs, { concurrency: "unbounded" }), (values) =>
      this.#result(values)
    )
    // A process whose program has ended may be what others wait for: the job is watched until all have.
    const ended = links === undefined ? ran : this.#gathered(links, ran)
    // Whoever finds that they cannot go on interrupts them.
    return Effect.raceFirst(
      ended,
      this.#job.watch(
        () => this.#machines.map(({ state }) => state),
        () => this.#nowSeconds()
      )
    ).pipe(
      Effect.mapError((error) => this.#job.explained(error)),
      // Who has stopped may have heard a signal that is on its way here too: then this is interrupted, and has not failed.
      Effect.tapError((error) =>
        error instanceof RankLost ? Effect.sleep(`${signalTravelsMillis} millis`) : Effect.void
      )
    )
  }

  /** What all processes did, at rank 0, on its clock. */
  #gathered(links: Links, ran: Effect.Effect<Ended<A>, MachineError>): Effect.Effect<Ended<A>, MachineError> {
    return Effect.gen({ self: this }, function* () {
      const before = yield* clockAt(links)
      const ended = yield* ran
      const { ranks, makespanSeconds, timeline, opLogs, coreTimes } = ended
      const after = yield* clockAt(links)
      // Clocks drift apart evenly: between the two times that they were compared, so did these.
      const drift = (after.offset - before.offset) / Math.max(after.own - before.own, 1e-9)
      const { origin, error } = this.#originOn(links)
      const onFirst = (own: number): number => own + before.offset + drift * (own - before.own)
      const begunSeconds = onFirst(origin)
      const since = (time: number): number => onFirst(origin + time) - begunSeconds
      const parts = yield* links.gather({
        begunSeconds,
        ranks,
        makespanSeconds: since(makespanSeconds),
        timeline: timeline === undefined ? undefined : timesChanged(timeline, since),
        opLogs,
        coreTimes,
        errorSeconds: Math.max(before.error, after.error) + error
      })
      if (parts === undefined) return ended
      // The run begins when the first process does.
      const firstSeconds = Math.min(...parts.map((part) => part.begunSeconds))
      const shifts = parts.map((part) => part.begunSeconds - firstSeconds)
      const timelines = parts.flatMap((part, i) =>
        part.timeline === undefined ? [] : [timesChanged(part.timeline, (time) => time + shifts[i]!)]
      )
      return {
        ...ended,
        ranks: parts.flatMap((part) => part.ranks),
        makespanSeconds: Math.max(...parts.map((part, i) => part.makespanSeconds + shifts[i]!)),
        timeline: timelines.length < parts.length ? undefined : joinTimelines(timelines, "own"),
        opLogs: parts.flatMap((part) => part.opLogs),
        coreTimes: together(parts.map((part) => part.coreTimes)),
        // Two ranks may each be off, to either side.
        clockErrorSeconds: 2 * Math.max(...parts.map((part) => part.errorSeconds))
      }
    })
  }

  /** When the run's clock was 0, on the clock that processes compare: from the quickest of a few looks at both. */
  #originOn({ mesh }: Links): { readonly origin: number; readonly error: number } {
    let best = { origin: 0, error: Infinity }
    for (let look = 0; look < 16; look++) {
      const first = mesh.nowNanoseconds
      const since = this.#nowSeconds()
      const last = mesh.nowNanoseconds
      const error = (last - first) * 0.5e-9
      if (error < best.error) best = { origin: (first + last) * 0.5e-9 - since, error }
    }
    return best
  }

  close(): void {
    this.#session.close()
  }

  #nowSeconds(): number {
    return this.#originSeconds === undefined ? 0 : this.#session.nowSeconds - this.#originSeconds
  }

  #result(values: ReadonlyArray<A>): Ended<A> {
    const makespanSeconds = this.#nowSeconds()
    const recorder = this.#recorder
    const originSeconds = this.#originSeconds ?? 0
    if (recorder !== undefined) {
      for (const [index, rank] of this.#job.ranks.entries()) {
        for (const { op, startSeconds, endSeconds } of this.#session.ranks[index]!.takeTimes()) {
          recorder.started(rank, op, startSeconds - originSeconds)
          recorder.ended(rank, op, endSeconds - originSeconds)
        }
      }
    }
    const timeline = recorder?.timeline("by-time")
    const machineOf = (rank: number): ExecutedRank => this.#machines[this.#job.ranks.indexOf(rank)]!
    return {
      ranks: this.#machines.map(({ rank: { submitted, steps, peakBytes } }, index) => ({
        rank: this.#job.ranks[index]!,
        value: values[index]!,
        ops: submitted,
        steps,
        peakBytes
      })),
      makespanSeconds:
        timeline === undefined ? makespanSeconds : timeline.endSeconds.reduce((a, b) => Math.max(a, b), 0),
      timeline,
      opLogs: recorder?.opLogs() ?? [],
      clockErrorSeconds: 0,
      capacityBytes: this.#capacityBytes,
      // The lanes' threads are there until the session is closed.
      coreTimes: this.#threadsBefore === undefined ? undefined : between(this.#threadsBefore, threadTimes()),
      replays: this.#session.replays,
      valuesOf: (rank, tensor) => machineOf(rank).valuesOf(tensor),
      resultsOf: (rank, op) => machineOf(rank).resultsOf(op),
      inputsOf: (rank, op) => machineOf(rank).inputsOf(op)
    }
  }
}
