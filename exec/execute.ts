// Runs a program for real on every rank of this process, until all have finished: one fiber per rank, one native session.
// The counterpart of sim/simulate.ts; knows nothing of scenarios, files or which algorithm it runs.
import * as Effect from "effect/Effect"
import { CollectiveOrder, describeUnmet } from "../core/machine/collective-order.ts"
import {
  Deadlock,
  defaultLookAhead,
  drained,
  Machine,
  type InitialValues,
  type MachineError,
  type Program,
  type RankOutcome
} from "../core/machine/machine.ts"
import type { Op } from "../core/machine/op.ts"
import type { PendingOptions } from "../core/machine/pending.ts"
import { Recorder } from "../core/machine/recorder.ts"
import type { OpLog, Timeline } from "../core/machine/timeline.ts"
import type { Place, Tensor, TensorData } from "../core/machine/tensor.ts"
import type { World } from "../core/world.ts"
import { stuckForGood } from "./deadlock.ts"
import { NativeSession, type Bus, type PrepareOptions, type SessionOptions } from "./native.ts"
import { ExecutedRank, type Shared } from "./rank-machine.ts"
import { StartGate } from "./start-gate.ts"

export interface Execution<A> {
  readonly world: World
  /** Run once for each rank. */
  readonly program: Program<A>
  /** Name of the native backend, and settings of that backend alone; "cpu" by default. */
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
  /** Opens the native session; for tests that break it. */
  readonly open?: ((options: SessionOptions) => NativeSession) | undefined
  /** Places in each rank's ring of ops under way, at first. For tests. */
  readonly ring?: PendingOptions["capacity"]
}

export interface ExecutedOutcome<A> extends RankOutcome<A> {
  readonly steps: number
}

export interface ExecutionResult<A> {
  readonly ranks: ReadonlyArray<ExecutedOutcome<A>>
  /** From the moment when all ranks begin to the end of the last op. */
  readonly makespanSeconds: number
  readonly timeline: Timeline | undefined
  readonly opLogs: ReadonlyArray<OpLog>
}

/** A run that has ended, while its tensors still hold their values. */
export interface Ended<A> extends ExecutionResult<A> {
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

/** How often to look whether everything waits for something that cannot come. */
const deadlockCheckMillis = 200

/** Runs the program on every rank until all have finished. */
export const execute = <A>(execution: Execution<A>): Effect.Effect<ExecutionResult<A>, MachineError> =>
  executeThen(execution, ({ ranks, makespanSeconds, timeline, opLogs }) => ({
    ranks,
    makespanSeconds,
    timeline,
    opLogs
  }))

/**
 * As `execute`; `then` sees the run while its tensors can still be looked at.
 * Throws Error with reason and remedy when the native addon is missing.
 */
export const executeThen = <A, B>(
  execution: Execution<A>,
  then: (ended: Ended<A>) => B
): Effect.Effect<B, MachineError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Run(execution)),
    (run) => Effect.map(run.toEnd, then),
    (run) => Effect.sync(() => run.close())
  )

class Run<A> {
  readonly #execution: Execution<A>
  readonly #session: NativeSession
  readonly #collectives = new CollectiveOrder()
  readonly #recorder: Recorder | undefined
  readonly #machines: ReadonlyArray<ExecutedRank>
  #originSeconds: number | undefined

  constructor(execution: Execution<A>) {
    this.#execution = execution
    const { world, capacityBytes, h2d, d2h, record = false, linkBytesPerSecond } = execution
    this.#session = (execution.open ?? NativeSession.open)({
      ranks: world.size,
      ...(execution.backend === undefined ? {} : { backend: execution.backend }),
      ...(execution.settings === undefined ? {} : { settings: execution.settings }),
      deviceBytes: capacityBytes?.device ?? Infinity,
      hostBytes: capacityBytes?.host ?? Infinity,
      ...(h2d === undefined ? {} : { h2d }),
      ...(d2h === undefined ? {} : { d2h }),
      ...(linkBytesPerSecond === undefined ? {} : { linkBytesPerSecond }),
      timed: record
    })
    this.#recorder = record ? new Recorder(world.all.ranks) : undefined
    const gate = new StartGate(world.size)
    gate.whenOpen(() => (this.#originSeconds = this.#session.nowSeconds))
    const shared: Shared = {
      session: this.#session,
      prepare: execution.prepare,
      gate,
      nowSeconds: () => this.#nowSeconds()
    }
    this.#machines = world.all.ranks.map(
      (rank) =>
        new ExecutedRank(shared, {
          rank,
          world,
          order: this.#collectives,
          recorder: this.#recorder,
          lookAhead: execution.lookAhead ?? defaultLookAhead,
          initial: execution.initial ?? (() => undefined),
          capacityBytes: {
            device: this.#session.ranks[rank]!.capacityBytes("device"),
            host: this.#session.ranks[rank]!.capacityBytes("host")
          },
          pending: { capacity: execution.ring, keepsEdges: true }
        })
    )
  }

  get toEnd(): Effect.Effect<Ended<A>, MachineError> {
    const programs = this.#machines.map((machine) =>
      Effect.provideService(drained(this.#execution.program), Machine, machine.rank.service).pipe(
        Effect.tap(() => Effect.sync(() => machine.finish()))
      )
    )
    return Effect.all(programs, { concurrency: "unbounded" }).pipe(
      // Whoever finds the deadlock interrupts the others.
      Effect.raceFirst(this.#watchForDeadlock),
      Effect.map((values) => this.#result(values))
    )
  }

  close(): void {
    this.#session.close()
  }

  get #watchForDeadlock(): Effect.Effect<never, Deadlock> {
    const look = Effect.suspend(() => {
      const unmet = this.#collectives.unmet
      const stuck = stuckForGood(
        this.#machines.map(({ state }) => state),
        unmet
      )
      if (stuck === undefined) return Effect.void
      return new Deadlock({
        atSeconds: this.#nowSeconds(),
        waiting: [...unmet.map(describeUnmet), ...this.#machines.flatMap(({ rank }) => rank.waitingFor)]
      })
    })
    return Effect.forever(Effect.andThen(Effect.sleep(deadlockCheckMillis), look))
  }

  #nowSeconds(): number {
    return this.#originSeconds === undefined ? 0 : this.#session.nowSeconds - this.#originSeconds
  }

  #result(values: ReadonlyArray<A>): Ended<A> {
    const makespanSeconds = this.#nowSeconds()
    const recorder = this.#recorder
    const originSeconds = this.#originSeconds ?? 0
    for (const [rank, native] of this.#session.ranks.entries()) {
      for (const { op, startSeconds, endSeconds } of recorder === undefined ? [] : native.takeTimes()) {
        recorder!.started(rank, op, startSeconds - originSeconds)
        recorder!.ended(rank, op, endSeconds - originSeconds)
      }
    }
    const timeline = recorder?.timeline("by-time")
    return {
      ranks: this.#machines.map(({ rank: { submitted, steps, peakBytes } }, rank) => ({
        rank,
        value: values[rank]!,
        ops: submitted,
        steps,
        peakBytes
      })),
      makespanSeconds:
        timeline === undefined ? makespanSeconds : timeline.endSeconds.reduce((a, b) => Math.max(a, b), 0),
      timeline,
      opLogs: this.#recorder?.opLogs() ?? [],
      valuesOf: (rank, tensor) => this.#machines[rank]!.valuesOf(tensor)
    }
  }
}
