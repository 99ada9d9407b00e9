// What a machine does for a rank in program order (rank.ts), and what it is told of an op that it launches.
import type * as Effect from "effect/Effect"
import type { Scalars } from "../kernels/scalars.ts"
import type { Meeting } from "./collective-order.ts"
import type { Lane } from "./lane.ts"
import type { MachineError } from "./machine.ts"
import type { Op, OpId } from "./op.ts"
import type { Token } from "./pending.ts"
import type { Drawn, Tensor, TensorData } from "./tensor.ts"

/** What a machine does for a rank. `Prepared` is what it keeps of an op from its first launch to the next. */
export interface Driver<Prepared> {
  /** An op is submitted for the first time. May throw for an op that this machine cannot run. */
  prepare(op: Op): Prepared
  /**
   * Puts the op into its lane, behind `before.tailOf(lane)` and the ops `before.edges[0 .. before.edgeCount)`. A collective
   * has its meeting. Returns what tells the op's end.
   */
  launch(
    id: OpId,
    op: Op,
    prepared: Prepared,
    scalars: Scalars | undefined,
    meeting: Meeting | undefined,
    before: Predecessors
  ): Token
  ended(lane: Lane, token: Token): boolean
  /** Calls `then` once the op has ended, from within this call or later. */
  whenEnded(lane: Lane, token: Token, then: () => void): void
  /** A token for the end of a step, of which the compute lane's last op has this one; -1 for a step that is over. */
  endStep(step: number, computeTail: Token): Token
  /** One token for the end of all lanes as they are; undefined where each lane's own is asked for. */
  readonly all: ((tails: Float64Array) => Token) | undefined
  /** Memory behind a tensor, its own or in an arena, with its first values where it has any. False when there is none. */
  allocate(tensor: Tensor, values: TensorData | undefined): boolean
  /** Makes first values of a tensor, which no op has named yet, where it lies: none of the program's ops, and before they begin. */
  draw(tensor: Tensor, drawn: Drawn): void
  free(tensor: Tensor): void
  /** Values of a tensor whose last writer has ended; undefined where the machine has none. */
  read(tensor: Tensor): Effect.Effect<TensorData | undefined, MachineError>
  nowSeconds(): number
  sleepUntil(seconds: number): Effect.Effect<void, MachineError>
  /** What went wrong on the device so far. */
  fault(): MachineError | undefined
  /** The program can go on only when something of the machine ends (true also of one that is over); or it goes on again. */
  readonly onWaiting: ((waiting: boolean) => void) | undefined
}

/** What a launch comes after. */
export interface Predecessors {
  /** Token of the op at the end of a lane; -1 while there is none. */
  tailOf(lane: Lane): Token
  /** Ops of other lanes: `edges[0 .. edgeCount)`. */
  readonly edges: Int32Array
  readonly edgeCount: number
  /** -1 for an op that ended so long ago that it is forgotten. */
  tokenOf(op: OpId): Token
}
