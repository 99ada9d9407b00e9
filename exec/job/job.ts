// A job is where the ranks of a run are: all in this process, or one process for each. It lets them begin together, holds them
// to one order of collectives, and finds out when they cannot go on. Knows nothing of kernels, queues or programs.
import type * as Effect from "effect/Effect"
import type { CollectiveOrder } from "../../core/machine/collective-order.ts"
import type { MachineError, RankLost } from "../../core/machine/machine.ts"
import type { PendingOp } from "../../core/machine/pending.ts"
import type { World } from "../../core/world.ts"
import type { WaitingRank } from "./deadlock.ts"
import type { StartGate } from "./start-gate.ts"

/** A rank of this process, as a job looks at it. */
export interface RankState extends WaitingRank {
  readonly pending: Iterable<PendingOp>
  /** What its program waits for, in words. */
  readonly waitingFor: ReadonlyArray<string>
}

/** What links the processes of a job. */
export interface Links {
  /** What a native session runs on to reach the other ranks. */
  readonly mesh: { readonly handle: unknown; readonly nowNanoseconds: number }
  /** Position among the processes of this host. */
  readonly localRank: number
  /** All ranks ask together. */
  readonly clockOffset: Effect.Effect<ClockOffset, RankLost>
  /** Every rank's value at rank 0, by rank; undefined at the others, who go on when all have come. */
  gather<A>(value: A): Effect.Effect<ReadonlyArray<A> | undefined, RankLost>
  /** Tells the program of a rank something. */
  tell(peer: number, about: string, value: unknown): void
  /** Calls `handler` with what is told about this, and with what was. */
  onTold(about: string, handler: (peer: number, value: unknown) => void): void
  /** Calls nobody any more. */
  forget(about: string): void
  /** Ranks that have said goodbye: they submit nothing more, and hear nothing. */
  readonly left: ReadonlySet<number>
  /** Calls `handler` whenever one more has left, after all that it told; what it returns ends that. */
  onLeft(handler: (peer: number) => void): () => void
}

/** Seconds to add to this process's clock for that of rank 0, and by how much that may be off. */
export interface ClockOffset {
  readonly seconds: number
  readonly errorSeconds: number
}

export interface Job {
  /** Ranks whose programs run in this process, ascending. */
  readonly ranks: ReadonlyArray<number>
  /** Told of every collective that a rank of this process submits. */
  readonly order: CollectiveOrder
  /** Opens when every rank of the job can begin; the run's clock starts there. */
  readonly gate: StartGate
  /** To the ranks of other processes; undefined where all are here. */
  readonly links?: Links | undefined
  /**
   * Fails when the job cannot go on: a deadlock, a rank that is gone. Never succeeds. `states` are those of this process's
   * ranks; `nowSeconds` is the run's clock.
   */
  watch(states: () => ReadonlyArray<RankState>, nowSeconds: () => number): Effect.Effect<never, MachineError>
  /** Why a program failed, where the job knows better than the machine that told it. */
  explained(error: MachineError): MachineError
}

/** Makes the job that a run of this world is. */
export type MakeJob = (world: World) => Job
