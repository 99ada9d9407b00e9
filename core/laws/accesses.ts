// Which op wrote and which have read each byte of a rank's tensors last, where tensors may lie in one another's memory.
import type { OpId } from "../machine/op.ts"
import type { Tensor } from "../machine/tensor.ts"

/** Bytes of a buffer that an op touched. */
export interface Access {
  readonly op: OpId
  readonly tensor: Tensor
  readonly from: number
  readonly to: number
}

const accessOf = (op: OpId, tensor: Tensor): Access => {
  const from = tensor.within?.offsetBytes ?? 0
  return { op, tensor, from, to: from + tensor.sizeBytes }
}

const bufferOf = ({ id, within }: Tensor): number => within?.arena.id ?? id

/** Accesses of one buffer that matter still. */
class Buffer {
  writes: Array<Access> = []
  reads: Array<Access> = []
}

/** Accesses of a rank in program order, forgotten where all of their bytes were written again. */
export class Accesses {
  readonly #buffers = new Map<number, Buffer>()

  /** Of the last writes (or of the reads since) those that have bytes in common with the tensor. */
  touching(tensor: Tensor, kind: "writes" | "reads"): ReadonlyArray<Access> {
    const { from, to } = accessOf(0, tensor)
    return this.#of(tensor)[kind].filter((earlier) => earlier.from < to && from < earlier.to)
  }

  read(op: OpId, tensor: Tensor): void {
    this.#of(tensor).reads.push(accessOf(op, tensor))
  }

  /** What had all of its bytes there is replaced: whoever comes after the write comes after it. */
  written(op: OpId, tensor: Tensor): void {
    const buffer = this.#of(tensor)
    const access = accessOf(op, tensor)
    const left = ({ from, to }: Access): boolean => from < access.from || to > access.to
    buffer.writes = buffer.writes.filter(left)
    buffer.reads = buffer.reads.filter(left)
    buffer.writes.push(access)
  }

  #of(tensor: Tensor): Buffer {
    const id = bufferOf(tensor)
    let buffer = this.#buffers.get(id)
    if (buffer === undefined) this.#buffers.set(id, (buffer = new Buffer()))
    return buffer
  }
}
