// The service an algorithm talks to. Two implementations: the simulator's (sim/machine.ts) and the executor's.
// A Program is SPMD, as in PyTorch: it is run once per rank, and sees its own rank's machine.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Scalars } from "../kernels/scalars.ts"
import type { World } from "../world.ts"
import type { Op, OpId } from "./op.ts"
import type { Place, Tensor, TensorData, TensorSpec } from "./tensor.ts"

/** An allocation did not fit into its memory. Nothing was allocated. */
export class OutOfMemory extends Schema.TaggedError<OutOfMemory>()("OutOfMemory", {
  rank: Schema.Number,
  place: Schema.Literals(["device", "host"]),
  tensor: Schema.String,
  neededBytes: Schema.Number,
  freeBytes: Schema.Number,
  capacityBytes: Schema.Number
}) {
  override get message(): string {
    return `rank ${this.rank}: tensor "${this.tensor}" needs ${this.neededBytes} B of ${this.place} memory; ${this.freeBytes} of ${this.capacityBytes} B are free`
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
    return `no progress possible after ${this.atSeconds} s; waiting: ${this.waiting.join("; ")}`
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

/** An op failed on its device: a token outside its vocabulary, a link that went away. */
export class DeviceFault extends Schema.TaggedError<DeviceFault>()("DeviceFault", {
  rank: Schema.Number,
  fault: Schema.String
}) {
  override get message(): string {
    return `rank ${this.rank}: ${this.fault}`
  }
}

export type MachineError = OutOfMemory | CollectiveMismatch | Deadlock | NoValues | DeviceFault

export class Machine extends Context.Service<
  Machine,
  {
    readonly rank: number
    readonly world: World
    /**
     * Makes a tensor. Memory is accounted in program order, as a stream-ordered caching allocator does: a freed
     * tensor's bytes are available to the next `alloc`, and the dependency edges keep the reuse safe.
     */
    alloc(spec: TensorSpec): Effect.Effect<Tensor, OutOfMemory>
    /** Gives the memory back. Submitting an op that names the tensor afterwards is a defect. */
    free(tensor: Tensor): void
    /** Bytes left in a memory of this rank; Infinity where it is unbounded. */
    freeBytes(place: Place): number
    /**
     * Puts an op into its lane and returns at once. A fault found here (a collective out of order, say) is kept and
     * fails the next `read`, `endStep` or `drain`, as errors of asynchronous devices do.
     * `scalars` are this launch's values of the kernel's scalars, for an op that leaves them out of its attributes.
     */
    submit(op: Op, scalars?: Scalars): OpId
    /** Waits until the op that last wrote the tensor has ended, and returns its values. */
    read(tensor: Tensor): Effect.Effect<TensorData, MachineError>
    /**
     * Ends a step (an iteration of training, a token of decoding). Waits while the program is more than the machine's
     * look-ahead of steps ahead of the compute lane.
     */
    readonly endStep: Effect.Effect<void, MachineError>
    /** Waits until everything submitted has ended. */
    readonly drain: Effect.Effect<void, MachineError>
    /** Whether the op that last wrote the tensor has ended by now: asks, and does not wait (an event query). */
    ready(tensor: Tensor): boolean
    /** Seconds since the run began: virtual time in a simulation, the clock's on a device. */
    readonly now: Effect.Effect<number>
    /** Waits until that moment; not at all when it is past. For programs that serve requests as they arrive. */
    sleepUntil(seconds: number): Effect.Effect<void, MachineError>
  }
>()("tandem/Machine") {}

/** An algorithm, written once: what one rank does. */
export type Program<A> = Effect.Effect<A, MachineError, Machine>
