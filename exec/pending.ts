// The ops of one rank that may not have ended yet, with what each waits for: enough to tell whether a program that waits can
// ever go on. Knows nothing of kernels or threads; who has ended is asked of the queue itself.
import { laneCount, type Lane } from "../core/machine/lane.ts"
import type { OpId } from "../core/machine/op.ts"

const none = -1

/** A ring of recent ops, by id. It grows when the oldest op in the way has not ended. */
export class Pending {
  #capacity = 256
  #lane = new Uint8Array(this.#capacity)
  // Ops of other lanes that must end first, `laneCount` for each op.
  #edges = new Int32Array(this.#capacity * laneCount).fill(none)
  // Number of the collective in the group's order, and which group; -1 for others.
  #position = new Int32Array(this.#capacity).fill(none)
  #group: Array<string | undefined> = []
  #next = 0
  #oldest = 0
  readonly #ended: (lane: Lane) => OpId

  /** `ended` tells the op of a lane that ended last. */
  constructor(ended: (lane: Lane) => OpId) {
    this.#ended = ended
  }

  get next(): OpId {
    return this.#next
  }

  /** Ops are added in program order. */
  add(lane: Lane, edges: Int32Array, edgeCount: number, group: string | undefined, position: number): void {
    if (this.#next - this.#oldest === this.#capacity) this.#makeRoom()
    const slot = this.#next & (this.#capacity - 1)
    this.#lane[slot] = lane
    const first = slot * laneCount
    for (let i = 0; i < edgeCount; i++) this.#edges[first + i] = edges[i]!
    if (edgeCount < laneCount) this.#edges[first + edgeCount] = none
    this.#group[slot] = group
    this.#position[slot] = position
    this.#next++
  }

  laneOf(op: OpId): Lane {
    return this.#lane[op & (this.#capacity - 1)] as Lane
  }

  /** Has the op ended? Ops that are no longer kept have. */
  hasEnded(op: OpId): boolean {
    return op < this.#oldest || this.#ended(this.laneOf(op)) >= op
  }

  /** Every op that has not ended, in program order. */
  *open(): Generator<PendingOp> {
    for (let op = this.#oldest; op < this.#next; op++) {
      if (this.hasEnded(op)) continue
      const slot = op & (this.#capacity - 1)
      const edges: Array<OpId> = []
      for (let i = 0; i < laneCount && this.#edges[slot * laneCount + i]! >= 0; i++)
        edges.push(this.#edges[slot * laneCount + i]!)
      yield {
        op,
        lane: this.#lane[slot] as Lane,
        edges,
        group: this.#group[slot],
        position: this.#position[slot]!
      }
    }
  }

  #makeRoom(): void {
    while (this.#oldest < this.#next && this.hasEnded(this.#oldest)) this.#oldest++
    if (this.#next - this.#oldest < this.#capacity / 2) return
    const kept = { lane: this.#lane, edges: this.#edges, position: this.#position, group: this.#group }
    const before = this.#capacity - 1
    this.#capacity *= 2
    this.#lane = new Uint8Array(this.#capacity)
    this.#edges = new Int32Array(this.#capacity * laneCount).fill(none)
    this.#position = new Int32Array(this.#capacity).fill(none)
    this.#group = []
    for (let op = this.#oldest; op < this.#next; op++) {
      const [from, to] = [op & before, op & (this.#capacity - 1)]
      this.#lane[to] = kept.lane[from]!
      this.#position[to] = kept.position[from]!
      this.#group[to] = kept.group[from]
      for (let i = 0; i < laneCount; i++) this.#edges[to * laneCount + i] = kept.edges[from * laneCount + i]!
    }
  }
}

export interface PendingOp {
  readonly op: OpId
  readonly lane: Lane
  readonly edges: ReadonlyArray<OpId>
  readonly group: string | undefined
  readonly position: number
}
