// One rank's machine in the executor: hands ops to the native queues, holds them back until the gate opens, and asks the queues
// what has ended. What a program may do is core/machine/rank.ts's; of threads exec/native.ts knows.
import * as Effect from "effect/Effect"
import { kernels } from "../core/kernels/catalogue.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import type { Driver, Predecessors } from "../core/machine/driver.ts"
import { type Lane } from "../core/machine/lane.ts"
import { DeviceFault, RankLost, type MachineError } from "../core/machine/machine.ts"
import type { Op, OpId } from "../core/machine/op.ts"
import type { Token } from "../core/machine/pending.ts"
import { Rank, type RankOptions } from "../core/machine/rank.ts"
import type { Drawn, Tensor, TensorData } from "../core/machine/tensor.ts"
import type { RankState } from "./job/job.ts"
import type { StartGate } from "./job/start-gate.ts"
import type { NativeRank, NativeSession, PrepareOptions } from "./native.ts"

/** What all ranks of a run share. */
export interface Shared {
  readonly session: NativeSession
  /** What an op is told beyond its kernel: links that it crosses, a time that it takes at least. */
  readonly prepare: ((rank: number, op: Op) => PrepareOptions | undefined) | undefined
  /** Whether what an op leaves in the tensors that it writes is kept. */
  readonly keeps: ((op: Op) => boolean) | undefined
  /** Of ops that are kept: whether what they find in the tensors that they read is, too. */
  readonly keepsInputs: ((op: Op) => boolean) | undefined
  readonly gate: StartGate
  /** Seconds since the gate opened; 0 before. */
  readonly nowSeconds: () => number
}

/** Launches a rank's ops on its native queues: an op's token is its id, for a lane ends its ops in order. */
export class ExecutedRank implements Driver<undefined> {
  readonly rank: Rank<undefined>
  readonly #shared: Shared
  readonly #index: number
  readonly #native: NativeRank
  readonly all = undefined
  readonly onWaiting = undefined
  /** Fibers that sleep until a moment: the program goes on without its ops. */
  #sleeping = 0
  readonly #results = new Map<OpId, Array<TensorData>>()
  readonly #inputs = new Map<OpId, Array<TensorData>>()
  /** Results that are still on their way, and who waits for them. */
  #coming = 0
  #whenKept: (() => void) | undefined

  constructor(shared: Shared, native: NativeRank, options: RankOptions) {
    this.#shared = shared
    this.#index = options.rank
    this.#native = native
    this.rank = new Rank(options, this)
    this.#native.takeEdgesFrom(this.rank.edges)
  }

  get state(): RankState {
    const { open, waits, waitingFor, finished } = this.rank
    return {
      rank: this.#index,
      pending: open,
      waits: this.#sleeping > 0 ? [] : waits.map(({ tokens }) => tokens),
      waitingFor,
      finished
    }
  }

  /** The program has ended. */
  finish(): void {
    this.rank.finish()
    this.#arrive()
  }

  /** The program can do no more before its ops run; a rank that begins has the values that it begins with. */
  #arrive(): void {
    const { gate } = this.#shared
    if (!gate.isOpen) this.#native.whenSettled(() => gate.arrive(this.#index))
  }

  prepare(op: Op): undefined {
    const options = this.#shared.prepare?.(this.#index, op)
    if (options !== undefined) this.#native.prepare(op, options)
  }

  launch(
    id: OpId,
    op: Op,
    _: undefined,
    scalars: Scalars | undefined,
    __: unknown,
    before: Predecessors
  ): Token {
    const { gate } = this.#shared
    if (gate.isOpen) {
      this.#submit(id, op, before.edgeCount, scalars)
      return id
    }
    const edges = before.edges.slice(0, before.edgeCount)
    const kept = scalars?.slice()
    gate.whenOpen(() => {
      before.edges.set(edges)
      this.#submit(id, op, edges.length, kept)
    })
    return id
  }

  #submit(id: OpId, op: Op, edges: number, scalars: Scalars | undefined): void {
    const { keeps, keepsInputs } = this.#shared
    const kept = keeps?.(op) === true
    // Whatever overwrites values that are kept waits until they are out; the program does not.
    if (kept && keepsInputs?.(op) === true) {
      const inputs = this.#keep(this.#inputs, id)
      for (const [index, tensor] of op.reads.entries())
        this.#native.whenFound(tensor, op, edges, inputs(index))
    }
    this.#native.submit(op, edges, scalars)
    if (!kept) return
    const results = this.#keep(this.#results, id)
    for (const [index, tensor] of op.writes.entries()) this.#native.whenRead(tensor, results(index))
  }

  /** What an op's tensors hold, each to be told when it is there. */
  #keep(where: Map<OpId, Array<TensorData>>, id: OpId): (index: number) => (data: TensorData) => void {
    const all: Array<TensorData> = []
    where.set(id, all)
    return (index) => {
      this.#coming++
      return (data) => {
        all[index] = data
        if (--this.#coming === 0) this.#whenKept?.()
      }
    }
  }

  /** All results that are kept of ops submitted so far are there. */
  readonly kept: Effect.Effect<void> = Effect.callback((resume) => {
    this.#whenKept = () => resume(Effect.void)
    if (this.#coming === 0) this.#whenKept()
  })

  /** What an op left in the tensors that it writes, where that is kept. */
  resultsOf(op: OpId): ReadonlyArray<TensorData> | undefined {
    return this.#results.get(op)
  }

  /** What an op found in the tensors that it reads, where that is kept. */
  inputsOf(op: OpId): ReadonlyArray<TensorData> | undefined {
    return this.#inputs.get(op)
  }

  ended(lane: Lane, token: Token): boolean {
    return this.#native.ended(lane) >= token
  }

  whenEnded(lane: Lane, token: Token, then: () => void): void {
    this.#shared.gate.whenOpen(() => this.#native.whenEnded(lane, token, then))
    this.#arrive()
  }

  /** A step has ended with the compute lane's last op. */
  endStep(_: number, computeTail: Token): Token {
    this.#shared.gate.whenOpen(() => this.#native.endStep())
    return computeTail
  }

  allocate(tensor: Tensor, values: TensorData | undefined): boolean {
    const { within } = tensor
    if (within !== undefined) this.#native.view(tensor, within.arena, within.offsetBytes)
    else if (!this.#makeRoom(tensor)) return false
    if (values !== undefined) this.#native.write(tensor, values)
    return true
  }

  draw(tensor: Tensor, { kernel, attributes }: Drawn): void {
    this.#native.draw(tensor, kernels[kernel], attributes)
  }

  /** Memory that was freed before the gate opened is only there once it is open. */
  #makeRoom(tensor: Tensor): boolean {
    if (this.#native.alloc(tensor)) return true
    this.#shared.gate.open()
    return this.#native.alloc(tensor)
  }

  free(tensor: Tensor): void {
    this.#shared.gate.whenOpen(() => this.#native.free(tensor))
  }

  /** The values may still be on their way, behind others that wait: the program sleeps, and not this thread. */
  read(tensor: Tensor): Effect.Effect<TensorData, MachineError> {
    return Effect.callback((resume) => {
      this.#native.whenRead(tensor, (data) => {
        const fault = this.fault()
        resume(fault === undefined ? Effect.succeed(data) : Effect.fail(fault))
      })
    })
  }

  /** Of a tensor that nothing is writing any more, when the run is over. */
  valuesOf(tensor: Tensor): TensorData {
    return this.#native.read(tensor)
  }

  nowSeconds(): number {
    return this.#shared.nowSeconds()
  }

  sleepUntil(seconds: number): Effect.Effect<void> {
    const begun = Effect.callback<void>((resume) => {
      this.#shared.gate.whenOpen(() => resume(Effect.void))
      this.#arrive()
    })
    // Timers have whole milliseconds, and may be early by one.
    const sleep: Effect.Effect<void> = Effect.suspend(() => {
      const left = seconds - this.nowSeconds()
      return left > 0 ? Effect.andThen(Effect.sleep(Math.ceil(left * 1000)), sleep) : Effect.void
    })
    return Effect.acquireUseRelease(
      Effect.sync(() => this.#sleeping++),
      () => Effect.andThen(begun, sleep),
      () => Effect.sync(() => this.#sleeping--)
    )
  }

  fault(): MachineError | undefined {
    const fault = this.#shared.session.fault
    if (fault === undefined) return undefined
    const { message, ...where } = fault
    if (fault.kind === "peer") return new RankLost({ rank: this.#index, lost: fault.peer, reason: message })
    return new DeviceFault({ ...where, fault: message })
  }
}
