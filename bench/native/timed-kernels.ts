// Kernels timed one after another in one lane, by the backend's own clock, on tensors of random numbers.
import { kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import type { Attributes, Shape } from "../../core/kernels/kernel.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import { elementsOf, sizeBytesOf, type Dtype, type Tensor } from "../../core/machine/tensor.ts"
import { median } from "../../core/median.ts"
import { NativeSession } from "../../exec/native.ts"

export interface TimedCall {
  readonly name: string
  readonly kernel: KernelName
  readonly inputs: ReadonlyArray<Tensor>
  readonly outputs: ReadonlyArray<Tensor>
  readonly attributes?: Attributes
}

export class TimedKernels {
  readonly #session: NativeSession
  #seed = 1
  #nextId = 0

  constructor(backend: string) {
    this.#session = NativeSession.open({ ranks: 1, backend, timed: true })
  }

  get #rank() {
    return this.#session.ranks[0]!
  }

  /** From -1 to 1. */
  #random(): number {
    this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0
    return this.#seed / 2 ** 31 - 1
  }

  /** Integers are from 0 to `below` - 1. */
  tensor(dtype: Dtype, shape: Shape, below = 50_000): Tensor {
    // a stretch of random numbers again and again: drawing hundreds of millions would take longer than all kernels
    const elements = elementsOf(shape)
    const data = dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
    const stretch = Math.min(elements, 1_000_003)
    for (let i = 0; i < stretch; i++) {
      const random = this.#random()
      data[i] = dtype === "int32" ? Math.floor(((random + 1) / 2) * below) : random
    }
    for (let at = stretch; at < elements; at += stretch)
      data.set(data.subarray(0, Math.min(stretch, elements - at)), at)
    return this.holding(dtype, shape, data)
  }

  holding(dtype: Dtype, shape: Shape, data: Float32Array | Int32Array): Tensor {
    const elements = elementsOf(shape)
    const id = this.#nextId++
    const sizeBytes = sizeBytesOf(elements, dtype)
    const made: Tensor = { id, name: `t${id}`, shape, dtype, place: "device", elements, sizeBytes }
    if (!this.#rank.alloc(made)) throw new Error(`${sizeBytes} B do not fit`)
    this.#rank.write(made, data)
    return made
  }

  /** Median seconds of so many launches of all calls together, after five to warm up. */
  async seconds(calls: ReadonlyArray<TimedCall>, repeats: number): Promise<number> {
    const ops = calls.map(({ name, kernel, inputs, outputs, attributes = {} }) =>
      launch(name, kernels[kernel], Lane.compute, inputs, outputs, attributes)
    )
    for (let i = 0; i < repeats; i++) for (const op of ops) this.#rank.submit(op, 0)
    await new Promise<void>((resolve) => this.#rank.whenDrained(resolve))
    const { fault } = this.#session
    if (fault !== undefined) throw new Error(`${calls[0]!.name}: ${JSON.stringify(fault)}`)
    const times = this.#rank.takeTimes()
    const all = Array.from({ length: repeats }, (_, round) => {
      const own = times.slice(round * ops.length, (round + 1) * ops.length)
      return own.at(-1)!.endSeconds - own[0]!.startSeconds
    })
    return median(all.slice(Math.min(5, repeats - 1)))
  }

  close(): void {
    this.#session.close()
  }
}
