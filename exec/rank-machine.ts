// One rank's machine in the executor: hands ops to the native queues with the edges that core derives, and suspends the
// program only where it must know that something has ended. Knows nothing of threads: exec/native.ts stands between.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { checkCall } from "../core/kernels/kernel.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import { Dependencies } from "../core/machine/dependencies.ts"
import { Lane, laneCount } from "../core/machine/lane.ts"
import { DeviceFault, OutOfMemory, type Machine, type MachineError } from "../core/machine/machine.ts"
import { checkScalars, type Op, type OpId } from "../core/machine/op.ts"
import {
  elementsOf,
  sizeBytesOf,
  type Place,
  type Tensor,
  type TensorData,
  type TensorSpec
} from "../core/machine/tensor.ts"
import type { World } from "../core/world.ts"
import type { CollectiveOrder } from "./collective-order.ts"
import type { WaitingRank } from "./deadlock.ts"
import type { NativeRank, NativeSession, PrepareOptions } from "./native.ts"
import { Pending } from "./pending.ts"
import type { Recorder } from "./recorder.ts"
import type { StartGate } from "./start-gate.ts"

/** Initial values of a tensor, instead of its own; undefined leaves it those. */
export type InitialValues = (rank: number, tensor: Tensor) => TensorData | undefined

/** What all ranks of a run share. */
export interface Shared {
  readonly world: World
  readonly session: NativeSession
  readonly collectives: CollectiveOrder
  readonly recorder: Recorder | undefined
  /** Steps a program may be ahead of its compute lane. */
  readonly lookAhead: number
  readonly initial: InitialValues | undefined
  /** What an op is told beyond its kernel: links that it crosses, a time that it takes at least. */
  readonly prepare: ((rank: number, op: Op) => PrepareOptions | undefined) | undefined
  readonly capacityBytes: Readonly<Record<Place, number>>
  readonly gate: StartGate
  /** Seconds since the gate opened; 0 before. */
  readonly nowSeconds: () => number
}

interface Waiting {
  readonly what: string
  readonly ops: ReadonlyArray<OpId>
  readonly resume: (exit: Exit.Exit<void, MachineError>) => void
}

export class RankMachine {
  readonly #shared: Shared
  readonly #rank: number
  readonly #native: NativeRank
  readonly #dependencies = new Dependencies()
  readonly #pending: Pending
  readonly #known = new WeakSet<Op>()
  readonly #usedBytes: Record<Place, number> = { device: 0, host: 0 }
  readonly #peakBytes: Record<Place, number> = { device: 0, host: 0 }
  #nextTensor = 0
  /** The last op of each lane. */
  readonly #tails = new Int32Array(laneCount).fill(-1)
  #step = 0
  #fault: MachineError | undefined
  #waiting: Waiting | undefined
  // The compute lane's last op at the ends of steps, by step modulo look-ahead.
  readonly #marks: Int32Array
  #finished = false

  constructor(shared: Shared, rank: number) {
    this.#shared = shared
    this.#rank = rank
    this.#native = shared.session.ranks[rank]!
    this.#native.takeEdgesFrom(this.#dependencies.edges)
    this.#pending = new Pending((lane) => this.#native.ended(lane))
    this.#marks = new Int32Array(shared.lookAhead).fill(-1)
  }

  get submitted(): number {
    return this.#pending.next
  }

  get steps(): number {
    return this.#step
  }

  get peakBytes(): Readonly<Record<Place, number>> {
    return this.#peakBytes
  }

  /** What the program waits for, if it does. */
  get waitingFor(): string | undefined {
    return this.#waiting === undefined ? undefined : `rank ${this.#rank} waits for ${this.#waiting.what}`
  }

  get state(): WaitingRank {
    return {
      rank: this.#rank,
      pending: this.#pending.open(),
      waitsFor: this.#waiting?.ops,
      finished: this.#finished
    }
  }

  /** The program has ended. */
  finish(): void {
    this.#finished = true
    this.#shared.gate.arrive(this.#rank)
  }

  /** The values of a tensor that is not freed and that nothing is writing any more. */
  valuesOf(tensor: Tensor): TensorData {
    return this.#native.read(tensor)
  }

  /** The service, as programs see it. */
  get service(): Machine["Service"] {
    const { capacityBytes, gate, nowSeconds } = this.#shared
    return {
      rank: this.#rank,
      world: this.#shared.world,
      alloc: (spec) => Effect.suspend(() => this.#alloc(spec)),
      free: (tensor) => {
        this.#usedBytes[tensor.place] -= tensor.sizeBytes
        gate.whenOpen(() => this.#native.free(tensor))
      },
      freeBytes: (place) => capacityBytes[place] - this.#usedBytes[place],
      submit: (op, scalars) => this.#submit(op, scalars),
      read: (tensor) =>
        Effect.map(
          this.#wait(`tensor "${tensor.name}"`, () => {
            const writer = this.#dependencies.writerOf(tensor)
            return writer < 0 ? [] : [writer]
          }),
          () => this.valuesOf(tensor)
        ),
      endStep: Effect.suspend(() => this.#endStep()),
      drain: this.#wait("everything submitted", () => [...this.#tails].filter((op) => op >= 0)),
      ready: (tensor) => {
        const writer = this.#dependencies.writerOf(tensor)
        return writer < 0 || this.#pending.hasEnded(writer)
      },
      now: Effect.sync(nowSeconds),
      sleepUntil: (seconds) =>
        Effect.andThen(
          this.#begun,
          Effect.suspend(() => {
            const left = seconds - nowSeconds()
            return left > 0 ? Effect.sleep(left * 1000) : Effect.void
          })
        )
    }
  }

  #alloc(spec: TensorSpec): Effect.Effect<Tensor, OutOfMemory> {
    const { name, shape, dtype, place = "device", initial } = spec
    const elements = elementsOf(shape)
    const sizeBytes = sizeBytesOf(elements, dtype)
    const tensor: Tensor = { id: this.#nextTensor, name, shape, dtype, place, elements, sizeBytes }
    const capacityBytes = this.#shared.capacityBytes[place]
    const freeBytes = capacityBytes - this.#usedBytes[place]
    if (sizeBytes > freeBytes || !this.#makeRoom(tensor)) {
      return Effect.fail(
        new OutOfMemory({
          rank: this.#rank,
          place,
          tensor: name,
          neededBytes: sizeBytes,
          freeBytes,
          capacityBytes
        })
      )
    }
    this.#nextTensor++
    this.#usedBytes[place] += sizeBytes
    this.#peakBytes[place] = Math.max(this.#peakBytes[place], this.#usedBytes[place])
    this.#dependencies.allocated(tensor)
    const values = this.#shared.initial?.(this.#rank, tensor) ?? initial?.()
    if (values !== undefined) {
      if (values.length !== elements)
        throw new RangeError(`tensor "${name}" has ${elements} elements and ${values.length} initial values`)
      this.#native.write(tensor, values)
    }
    return Effect.succeed(tensor)
  }

  /** Memory that was freed before the gate opened is only there once it is open. */
  #makeRoom(tensor: Tensor): boolean {
    if (this.#native.alloc(tensor)) return true
    this.#shared.gate.open()
    return this.#native.alloc(tensor)
  }

  #submit(op: Op, scalars: Scalars | undefined): OpId {
    const { recorder, collectives, gate } = this.#shared
    if (scalars !== undefined || op.kernel.scalars.length > 0) checkScalars(op, scalars)
    if (!this.#known.has(op)) this.#introduce(op)
    const id = this.#pending.next
    // After a fault nothing runs any more; the program hears of it where it next waits.
    if (this.#fault !== undefined) return id
    let position = -1
    if (op.group !== undefined) {
      const joined = collectives.join(this.#rank, op)
      if (typeof joined !== "number") {
        this.#fault = joined
        return id
      }
      position = joined
    }
    const { reads, writes, lane } = op
    const dependencies = this.#dependencies
    dependencies.derive(id, lane, reads, writes)
    const count = dependencies.edgeCount
    if (gate.isOpen) this.#native.submit(op, count, scalars)
    else this.#hold(op, dependencies.edges.slice(0, count), scalars?.slice())
    this.#tails[lane] = id
    this.#pending.add(lane, dependencies.edges, count, op.group?.name, position)
    recorder?.submitted(this.#rank, id, this.#step, op, scalars, dependencies)
    return id
  }

  /** Whatever is wrong with an op is a defect of the program, found before the queues see it. */
  #introduce(op: Op): void {
    checkCall(op.kernel, op.reads, op.writes, op.attributes)
    const options = this.#shared.prepare?.(this.#rank, op)
    if (options !== undefined) this.#native.prepare(op, options)
    this.#known.add(op)
  }

  #hold(op: Op, edges: Int32Array, scalars: Scalars | undefined): void {
    this.#shared.gate.whenOpen(() => {
      this.#dependencies.edges.set(edges)
      this.#native.submit(op, edges.length, scalars)
    })
  }

  /** Waits until the gate is open. */
  readonly #begun: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.#shared.gate.whenOpen(() => resume(Effect.void))
    this.#shared.gate.arrive(this.#rank)
  })

  #endStep(): Effect.Effect<void, MachineError> {
    const step = this.#step++
    const slot = step % this.#shared.lookAhead
    const earlier = this.#marks[slot]!
    this.#marks[slot] = this.#tails[Lane.compute]!
    return this.#wait(`step ${step - this.#shared.lookAhead}`, () => (earlier < 0 ? [] : [earlier]))
  }

  /** Suspends the program until these ops have ended; fails with the fault found meanwhile, if any. */
  #wait(what: string, opsToEnd: () => ReadonlyArray<OpId>): Effect.Effect<void, MachineError> {
    return Effect.suspend(() => {
      const fault = this.#faultSoFar()
      if (fault !== undefined) return Effect.fail(fault)
      const ops = opsToEnd().filter((op) => !this.#pending.hasEnded(op))
      if (ops.length === 0) return Effect.void
      return Effect.callback<void, MachineError>((resume) => {
        const waiting: Waiting = { what, ops, resume }
        this.#waiting = waiting
        let left = ops.length
        const ended = (): void => {
          left--
          if (left > 0 || this.#waiting !== waiting) return
          this.#waiting = undefined
          const found = this.#faultSoFar()
          resume(found === undefined ? Exit.void : Exit.fail(found))
        }
        const { gate } = this.#shared
        gate.whenOpen(() => {
          for (const op of ops) this.#native.whenEnded(this.#pending.laneOf(op), op, ended)
        })
        gate.arrive(this.#rank)
      })
    })
  }

  #faultSoFar(): MachineError | undefined {
    if (this.#fault !== undefined) return this.#fault
    const fault = this.#shared.session.fault
    if (fault !== undefined) this.#fault = new DeviceFault({ rank: this.#rank, fault })
    return this.#fault
  }
}
