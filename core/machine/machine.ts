// The service an algorithm talks to. Two implementations: the simulator's (sim/machine.ts) and the executor's.
// A Program is SPMD, as in PyTorch: it is run once per rank, and sees its own rank's machine.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Scalars } from "../kernels/scalars.ts"
import { formatBytes, formatSeconds } from "../units.ts"
import type { World } from "../world.ts"
import type { Op, OpId } from "./op.ts"
import type { Drawn, Place, Tensor, TensorData, TensorSpec } from "./tensor.ts"

/** An allocation did not fit into its memory. Nothing was allocated. */
export class OutOfMemory extends Schema.TaggedError<OutOfMemory>()("OutOfMemory", {
  rank: Schema.Number,
  place: Schema.Literals(["device", "host"]),
  tensor: Schema.String,
  neededBytes: Schema.Number,
  freeBytes: Schema.Number,
  capacityBytes: Schema.Number,
  /** What the fullest rank would hold at a time if it had room; where somebody has found out. */
  heldBytes: Schema.optionalKey(Schema.Number)
}) {
  override get message(): string {
    const held =
      this.heldBytes === undefined
        ? ""
        : `; with room for it a rank holds up to ${formatBytes(this.heldBytes)}: does not fit ${formatBytes(this.capacityBytes)}`
    // A rank's share of a memory may end within a byte.
    const [needed, free, all] = [
      Math.ceil(this.neededBytes),
      Math.floor(this.freeBytes),
      Math.floor(this.capacityBytes)
    ]
    const room = all === Infinity ? "no memory holds as much" : `${free} of ${all} B are free`
    return `rank ${this.rank}: tensor "${this.tensor}" needs ${needed} B of ${this.place} memory; ${room}${held}`
  }
}

/** Two ranks submitted different collectives at the same place of one communicator's order. */
export class CollectiveMismatch extends Schema.TaggedError<CollectiveMismatch>()("CollectiveMismatch", {
  group: Schema.String,
  position: Schema.Number,
  rank: Schema.Number,
  submitted: Schema.String,
  expected: Schema.String,
  expectedByRank: Schema.Number
}) {
  override get message(): string {
    return `group "${this.group}", collective ${this.position}: rank ${this.rank} submitted ${this.submitted}, rank ${this.expectedByRank} had submitted ${this.expected}`
  }
}

/** Nothing can happen any more, yet ops or programs are waiting. */
export class Deadlock extends Schema.TaggedError<Deadlock>()("Deadlock", {
  atSeconds: Schema.Number,
  waiting: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `no progress possible after ${formatSeconds(this.atSeconds)}; waiting: ${this.waiting.join("; ")}`
  }
}

/** The machine has no values for this tensor: a timing-only simulation was asked for data. */
export class NoValues extends Schema.TaggedError<NoValues>()("NoValues", {
  rank: Schema.Number,
  tensor: Schema.String
}) {
  override get message(): string {
    return `rank ${this.rank}: tensor "${this.tensor}" has no values in a timing-only simulation; run with values, or give a source for this tensor`
  }
}

/**
 * Something failed on a device: an op whose values its kernel cannot work with, memory or threads that the system does not
 * give, another rank that is gone. Every rank of the run hears of the same, first one.
 */
export class DeviceFault extends Schema.TaggedError<DeviceFault>()("DeviceFault", {
  kind: Schema.Literals(["value", "collective", "memory", "thread", "device", "peer", "aborted", "closed"]),
  /** The rank that it happened to, and its op in program order; -1 where it is no one's. */
  rank: Schema.Number,
  op: Schema.Number,
  /** The rank that is to blame where that is another; else -1. */
  peer: Schema.Number,
  /** What happened, in words. */
  fault: Schema.String
}) {
  override get message(): string {
    const op = this.op < 0 ? "" : `, op ${this.op}`
    return this.rank < 0 ? this.fault : `rank ${this.rank}${op}: ${this.fault}`
  }
}

/** Another process of the job is gone, or does not answer; or it ended the job and says why. */
export class RankLost extends Schema.TaggedError<RankLost>()("RankLost", {
  rank: Schema.Number,
  /** Who is gone. */
  lost: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `rank ${this.rank}: lost rank ${this.lost}: ${this.reason}`
  }
}

/**
 * A program used its machine in a way that no machine can carry out: a tensor used after it was freed, an op that does not
 * fit its kernel, a rank outside of its group. A defect of the program, so it is thrown or dies where it is made, and is no
 * `MachineError`; but the same on every machine.
 */
export class Misuse extends Schema.TaggedError<Misuse>()("Misuse", {
  rank: Schema.Number,
  call: Schema.Literals(["alloc", "free", "submit", "read", "ready", "lookAhead", "suspend"]),
  /** Name of the tensor or label of the op concerned. */
  subject: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `rank ${this.rank}, ${this.call} of "${this.subject}": ${this.reason}`
  }
}

export type MachineError = OutOfMemory | CollectiveMismatch | Deadlock | NoValues | DeviceFault | RankLost

export class Machine extends Context.Service<
  Machine,
  {
    readonly rank: number
    readonly world: World
    /**
     * Makes a tensor. Extents are whole numbers of at least 0: all else is a `Misuse`. More than 2^53 - 1 elements fit into no
     * memory, one without bounds included.
     * Memory is accounted in program order, as a stream-ordered caching allocator does: a freed
     * tensor's bytes are available to the next `alloc`, and the dependency edges keep the reuse safe.
     */
    alloc(spec: TensorSpec): Effect.Effect<Tensor, OutOfMemory>
    /** Gives the memory back. To name the tensor afterwards, in an op or a read or to free it again, is a `Misuse`. */
    free(tensor: Tensor): void
    /** Bytes left in a memory of this rank; Infinity where it is unbounded. */
    freeBytes(place: Place): number
    /**
     * Puts an op into its lane and returns at once. A fault found here (a collective out of order, say) is kept and
     * fails the next `read`, `endStep` or `drain`, as errors of asynchronous devices do; nothing is launched after it.
     * Throws `Misuse` for an op that cannot be: shapes, dtypes or attributes that do not fit its kernel, tensors freed,
     * another rank's or in the wrong memory, a group without this rank.
     * `scalars` are this launch's values of the kernel's scalars, for an op that leaves them out of its attributes.
     */
    submit(op: Op, scalars?: Scalars): OpId
    /**
     * Waits until the op that last wrote the tensor has ended, and returns its values. Several reads may be awaited at
     * once, from fibers of the program.
     */
    read(tensor: Tensor): Effect.Effect<TensorData, MachineError>
    /**
     * Ends a step (an iteration of training, a token of decoding). Waits while the program is more than the machine's
     * look-ahead of steps ahead of the compute lane; with a look-ahead of 0, for the end of that very step.
     */
    readonly endStep: Effect.Effect<void, MachineError>
    /** Waits until everything submitted has ended. */
    readonly drain: Effect.Effect<void, MachineError>
    /**
     * Whether the op that last wrote the tensor has ended by now, or with `"use"` every op that has named it: asks, and does
     * not wait (an event query).
     */
    ready(tensor: Tensor, after?: "write" | "use"): boolean
    /** Seconds since the run began: virtual time in a simulation, the clock's on a device. */
    readonly now: Effect.Effect<number>
    /** Waits until that moment; not at all when it is past. For programs that serve requests as they arrive. */
    sleepUntil(seconds: number): Effect.Effect<void, MachineError>
  }
>()("tandem/Machine") {}

/** An algorithm, written once: what one rank does. */
export type Program<A> = Effect.Effect<A, MachineError, Machine>

/** A program is over when everything it submitted is. */
export const drained = <A>(program: Program<A>): Program<A> =>
  Effect.gen(function* () {
    const value = yield* program
    const machine = yield* Machine
    yield* machine.drain
    return value
  })

/** What every machine says of a rank whose program has ended. */
export interface RankOutcome<A> {
  readonly rank: number
  readonly value: A
  /** Ops that it submitted. */
  readonly ops: number
  /** Most bytes that it held at a time. */
  readonly peakBytes: Readonly<Record<Place, number>>
}

/** Steps that a program may be ahead of its compute lane, where nothing else is said. */
export const defaultLookAhead = 2

/** Initial values of a tensor, instead of its own; undefined leaves it those. */
export type InitialValues = (rank: number, tensor: Tensor) => TensorData | ReadonlyArray<Drawn> | undefined

/** What a read gives where no values are calculated; `read` counts the reads of that tensor before it. */
export type ReadSource = (rank: number, tensor: Tensor, read: number) => TensorData | undefined
