// Derives the edges between ops from the tensors they read and write: read-after-write, write-after-read and
// write-after-write. Both machines take their order from here and invent none of their own.
// Knows nothing of time, kernels or other ranks.
import { laneCount, type Lane } from "./lane.ts"
import type { OpId } from "./op.ts"
import type { Tensor } from "./tensor.ts"

const none = -1

/**
 * Edges of one rank, one op at a time, in program order.
 *
 * A lane is FIFO, so waiting for an op of a lane implies waiting for everything submitted to that lane before it. An op
 * therefore has at most one edge per other lane, none to its own, and none that an earlier op of its own lane already
 * waited for: exactly the event waits a real queue needs.
 */
export class Dependencies {
  /** Edges of the op last derived: `edges[0 .. edgeCount)`, in lane order. */
  readonly edges = new Int32Array(laneCount)
  edgeCount = 0

  // Per tensor: the op that wrote it last, that op's lane, and per lane the last op that read it since.
  #writer = new Int32Array(64).fill(none)
  #writerLane = new Uint8Array(64)
  #readers = new Int32Array(64 * laneCount).fill(none)
  // seen[a * laneCount + b]: the latest op of lane b that some op of lane a already waits for.
  readonly #seen = new Int32Array(laneCount * laneCount).fill(none)
  readonly #need = new Int32Array(laneCount)

  /** Computes the edges of `op` on `lane` into `edges`, and records what the op reads and writes. */
  derive(op: OpId, lane: Lane, reads: ReadonlyArray<Tensor>, writes: ReadonlyArray<Tensor>): void {
    const need = this.#need
    need.fill(none)
    for (let i = 0; i < reads.length; i++) {
      const id = reads[i]!.id
      if (id >= this.#writer.length) this.#grow(id)
      this.#needWriter(id)
    }
    for (let i = 0; i < writes.length; i++) {
      const id = writes[i]!.id
      if (id >= this.#writer.length) this.#grow(id)
      this.#needWriter(id)
      const base = id * laneCount
      for (let other = 0; other < laneCount; other++) {
        const reader = this.#readers[base + other]!
        if (reader > need[other]!) need[other] = reader
      }
    }

    this.edgeCount = 0
    const seenBase = lane * laneCount
    for (let other = 0; other < laneCount; other++) {
      if (other === lane) continue
      const predecessor = need[other]!
      if (predecessor > this.#seen[seenBase + other]!) {
        this.#seen[seenBase + other] = predecessor
        this.edges[this.edgeCount++] = predecessor
      }
    }

    for (let i = 0; i < reads.length; i++) this.#readers[reads[i]!.id * laneCount + lane] = op
    for (let i = 0; i < writes.length; i++) {
      const id = writes[i]!.id
      this.#writer[id] = op
      this.#writerLane[id] = lane
      this.#readers.fill(none, id * laneCount, (id + 1) * laneCount)
    }
  }

  /** The op whose end makes the tensor's present value available, or -1 when nothing wrote it. */
  writerOf(tensor: Tensor): OpId {
    return tensor.id < this.#writer.length ? this.#writer[tensor.id]! : none
  }

  #needWriter(id: number): void {
    const writer = this.#writer[id]!
    if (writer === none) return
    const lane = this.#writerLane[id]!
    if (writer > this.#need[lane]!) this.#need[lane] = writer
  }

  #grow(id: number): void {
    let capacity = this.#writer.length
    while (capacity <= id) capacity *= 2
    const writer = new Int32Array(capacity).fill(none)
    writer.set(this.#writer)
    const writerLane = new Uint8Array(capacity)
    writerLane.set(this.#writerLane)
    const readers = new Int32Array(capacity * laneCount).fill(none)
    readers.set(this.#readers)
    this.#writer = writer
    this.#writerLane = writerLane
    this.#readers = readers
  }
}
