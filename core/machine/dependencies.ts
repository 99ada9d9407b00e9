// Derives the edges between ops from the tensors they read and write: read-after-write, write-after-read and
// write-after-write. Both machines take their order from here and invent none of their own.
// Knows nothing of time, kernels or other ranks.
import { laneCount, type Lane } from "./lane.ts"
import type { Op, OpId } from "./op.ts"
import type { Tensor } from "./tensor.ts"
import { withArenas } from "./views.ts"

const none = -1

// What is known of a tensor, in a record of integers: the op that wrote it last, -1 while none has, and that op's lane; the lanes that
// read it since, as bits, and the last op of each that did.
const writer = 0
const writerLane = 1
const readerLanes = 2
const firstReader = 3
const recordLength = firstReader + laneCount

/** So many records more, of tensors that nothing has touched. */
const withUntouched = (records: Int32Array, more: number): Int32Array<ArrayBuffer> => {
  const longer = new Int32Array(records.length + more * recordLength)
  longer.set(records)
  for (let at = records.length; at < longer.length; at += recordLength) longer[at + writer] = none
  return longer
}

/** Tensors that an op touches, by id: made once for an op, and read at each of its submissions. */
export interface Touched {
  /** Those that it only reads. */
  readonly reads: Int32Array
  /** Whoever writes a tensor waits for all that a reader waits for, so one that is read as well is told of here alone. */
  readonly writes: Int32Array
}

/** What an op touches, arenas that its tensors lie in included: whoever touches a place in one keeps its turn. */
export const touchedBy = ({ reads, writes }: Pick<Op, "reads" | "writes">): Touched => {
  const written = idsOf(withArenas(writes), new Set())
  const read = idsOf(withArenas(reads), written)
  return { reads: Int32Array.from(read), writes: Int32Array.from(written) }
}

/** Each once, and none of `others`. */
const idsOf = (tensors: ReadonlyArray<Tensor>, others: ReadonlySet<number>): ReadonlySet<number> => {
  const ids = new Set<number>()
  for (const { id } of tensors) if (!others.has(id)) ids.add(id)
  return ids
}

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

  // By tensor.
  #records = withUntouched(new Int32Array(0), 64)
  // seen[a * laneCount + b]: the latest op of lane b that some op of lane a already waits for.
  readonly #seen = new Int32Array(laneCount * laneCount).fill(none)
  readonly #need = new Int32Array(laneCount)

  /** Must be told of every tensor before an op names it. */
  allocated(tensor: Tensor): void {
    const known = this.#records.length / recordLength
    if (tensor.id >= known)
      this.#records = withUntouched(this.#records, Math.max(known, tensor.id + 1 - known))
  }

  /** Computes the edges of `op` on `lane` into `edges`, and records what the op reads and writes. */
  derive(op: OpId, lane: Lane, { reads, writes }: Touched): void {
    const records = this.#records
    const need = this.#need
    const own = 1 << lane
    // Lanes, as bits, that hold an op to wait for; `need` is meaningful for those only.
    let needed = 0
    // What the op itself reads or writes is on its own lane, which it never waits for: each tensor can be looked at and
    // recorded in one go.
    for (let i = 0; i < reads.length; i++) {
      const record = reads[i]! * recordLength
      const on = records[record + writerLane]!
      if (on !== lane) {
        const written = records[record + writer]!
        if (written >= 0) {
          if ((needed & (1 << on)) === 0 || written > need[on]!) need[on] = written
          needed |= 1 << on
        }
      }
      records[record + readerLanes]! |= own
      records[record + firstReader + lane] = op
    }
    for (let i = 0; i < writes.length; i++) {
      const record = writes[i]! * recordLength
      const on = records[record + writerLane]!
      if (on !== lane) {
        const written = records[record + writer]!
        if (written >= 0) {
          if ((needed & (1 << on)) === 0 || written > need[on]!) need[on] = written
          needed |= 1 << on
        }
        records[record + writerLane] = lane
      }
      records[record + writer] = op
      let lanes = records[record + readerLanes]! & ~own
      records[record + readerLanes] = 0
      while (lanes !== 0) {
        const other = 31 - Math.clz32(lanes)
        const reader = records[record + firstReader + other]!
        if ((needed & (1 << other)) === 0 || reader > need[other]!) need[other] = reader
        needed |= 1 << other
        lanes ^= 1 << other
      }
    }

    let count = 0
    if (needed !== 0) {
      const seen = this.#seen
      const seenBase = lane * laneCount
      for (let other = 0; other < laneCount; other++) {
        if ((needed & (1 << other)) === 0 || need[other]! <= seen[seenBase + other]!) continue
        seen[seenBase + other] = need[other]!
        this.edges[count++] = need[other]!
      }
    }
    this.edgeCount = count
  }

  /** The op whose end makes the tensor's present value available, or -1 when nothing wrote it. */
  writerOf({ id }: Tensor): OpId {
    return this.#records[id * recordLength + writer]!
  }

  /** The last op of each lane that has read the tensor since it was written. */
  readersOf({ id }: Tensor): ReadonlyArray<OpId> {
    const record = id * recordLength
    const readers: Array<OpId> = []
    for (let lane = 0; lane < laneCount; lane++)
      if ((this.#records[record + readerLanes]! & (1 << lane)) !== 0)
        readers.push(this.#records[record + firstReader + lane]!)
    return readers
  }
}
