// The numbers behind tensors in a simulation that carries values: every op's reference runs at the virtual moment the op
// ends. A missing edge then shows as a wrong number, just as it would on a device.
import { collectives, kernels } from "../core/kernels/catalogue.ts"
import { evaluate, evaluateCollective } from "../core/kernels/evaluate.ts"
import { roundInPlace } from "../core/kernels/rounding.ts"
import type { Meeting, OnCollective } from "../core/machine/collective-order.ts"
import type { OnOp, Op, OpId } from "../core/machine/op.ts"
import { dtypeBits, type Drawn, type Tensor, type TensorData } from "../core/machine/tensor.ts"

/** What tensors hold in a simulation with values, by rank and tensor. */
export class Values {
  readonly #tensors = new Map<number, Array<TensorData>>()
  readonly #onCollective: OnCollective | undefined
  readonly #onOp: OnOp | undefined

  constructor(onCollective?: OnCollective, onOp?: OnOp) {
    this.#onCollective = onCollective
    this.#onOp = onOp
  }

  /** A tensor's first values, rounded to its dtype as a device stores them; zeros where there are none. */
  alloc(rank: number, tensor: Tensor, values?: TensorData): void {
    let tensors = this.#tensors.get(rank)
    if (tensors === undefined) this.#tensors.set(rank, (tensors = []))
    const own = values?.slice()
    if (own !== undefined) roundInPlace(own, tensor.dtype)
    tensors[tensor.id] = own ?? this.#zeros(rank, tensor)
  }

  /** At the moment when the tensor is made: virtual time does not pass. */
  draw(rank: number, tensor: Tensor, { kernel, attributes }: Drawn): void {
    const data = [this.of(rank, tensor)]
    evaluate(kernels[kernel], [tensor], data, [tensor], data, attributes)
  }

  /** In an arena: the bytes there, at four for each element of the arena's dtype, so that what overlaps there overlaps here. */
  #zeros(rank: number, { dtype, elements, within }: Tensor): TensorData {
    const integers = dtype === "int32"
    if (within === undefined) return integers ? new Int32Array(elements) : new Float32Array(elements)
    const { buffer, byteOffset } = this.of(rank, within.arena)
    const from = byteOffset + (4 * within.offsetBytes * 8) / dtypeBits[within.arena.dtype]
    return integers ? new Int32Array(buffer, from, elements) : new Float32Array(buffer, from, elements)
  }

  of(rank: number, tensor: Tensor): TensorData {
    const data = this.#tensors.get(rank)?.[tensor.id]
    if (data === undefined) throw new RangeError(`tensor "${tensor.name}" is not one of rank ${rank}`)
    return data
  }

  /** `op` has the launch's scalars among its attributes. */
  run(rank: number, id: OpId, op: Op): void {
    const valuesOf = (tensor: Tensor): TensorData => this.of(rank, tensor)
    const [inputData, outputData] = [op.reads.map(valuesOf), op.writes.map(valuesOf)]
    const then = this.#onOp?.({ rank, id, op, inputData, outputData, valuesOf })
    evaluate(op.kernel, op.reads, inputData, op.writes, outputData, op.attributes)
    then?.()
  }

  /** `ops[i]` is what `ranks[i]` submitted; all members, in group order. */
  runCollective(meeting: Meeting, ranks: ReadonlyArray<number>, ops: ReadonlyArray<Op>): void {
    const kernel = collectives[ops[0]!.kernel.name as keyof typeof collectives]
    const members = ops.map((op, i) => ({
      inputs: op.reads,
      inputData: op.reads.map((tensor) => this.of(ranks[i]!, tensor)),
      outputs: op.writes,
      outputData: op.writes.map((tensor) => this.of(ranks[i]!, tensor)),
      attributes: op.attributes
    }))
    const { communicator, position } = meeting
    const valuesOf = (rank: number, tensor: Tensor): TensorData => this.of(rank, tensor)
    const computed = { group: communicator.group.name, position, kernel, ranks, ops, members, valuesOf }
    const then = this.#onCollective?.(computed)
    evaluateCollective(kernel, members)
    then?.()
  }
}
