// The ops of one rank that may not have ended yet, by id: on which lane each is, what tells the machine whether it has ended,
// and, where a deadlock is looked for, what it waits for. A ring that grows rather than lose an op that has not ended.
// Knows nothing of kernels, time or threads.
import type { Meeting } from "./collective-order.ts"
import { laneCount, type Lane } from "./lane.ts"
import type { OpId } from "./op.ts"

const none = -1

/** A machine's own name for the end of an op; not negative. */
export type Token = number

export interface PendingOp {
  readonly op: OpId
  readonly lane: Lane
  /** Ops of other lanes that must end first. */
  readonly edges: ReadonlyArray<OpId>
  readonly meeting: Meeting | undefined
}

export interface PendingOptions {
  /** Places at first, a power of two. Default 1024. */
  readonly capacity?: number | undefined
  /** Keep what each op waits for, for `open`. Default false. */
  readonly keepsEdges?: boolean | undefined
}

export class Pending {
  #capacity: number
  #lanes: Uint8Array
  #tokens: Float64Array
  // Edges of each op, `laneCount` places for each; and its collective. Where they are kept.
  #edges: Int32Array | undefined
  #meetings: Array<Meeting | undefined> | undefined
  #next = 0
  #oldest = 0
  readonly #ended: (lane: Lane, token: Token) => boolean

  /** `ended` tells whether the op of that lane and token has ended. */
  constructor(
    ended: (lane: Lane, token: Token) => boolean,
    { capacity = 1024, keepsEdges = false }: PendingOptions = {}
  ) {
    if (!Number.isInteger(capacity) || capacity < 1 || (capacity & (capacity - 1)) !== 0)
      throw new RangeError(`a ring of ${capacity} ops; expected a power of two`)
    this.#ended = ended
    this.#capacity = capacity
    this.#lanes = new Uint8Array(capacity)
    this.#tokens = new Float64Array(capacity)
    this.#edges = keepsEdges ? new Int32Array(capacity * laneCount).fill(none) : undefined
    this.#meetings = keepsEdges ? [] : undefined
  }

  /** Id of the op that is added next. */
  get next(): OpId {
    return this.#next
  }

  /** Adds the next op; `edges[0 .. edgeCount)` are the ops that it waits for. */
  add(lane: Lane, token: Token, edges: Int32Array, edgeCount: number, meeting: Meeting | undefined): void {
    if (this.#next - this.#oldest === this.#capacity) this.#makeRoom()
    const slot = this.#next & (this.#capacity - 1)
    this.#lanes[slot] = lane
    this.#tokens[slot] = token
    if (this.#edges !== undefined) {
      const first = slot * laneCount
      for (let i = 0; i < edgeCount; i++) this.#edges[first + i] = edges[i]!
      if (edgeCount < laneCount) this.#edges[first + edgeCount] = none
      this.#meetings![slot] = meeting
    }
    this.#next++
  }

  /** The op's token; -1 once the op is no longer kept, and so has ended. */
  tokenOf(op: OpId): Token {
    return op < this.#oldest ? none : this.#tokens[op & (this.#capacity - 1)]!
  }

  /** Meaningful while the op is kept: `tokenOf` is not -1. */
  laneOf(op: OpId): Lane {
    return this.#lanes[op & (this.#capacity - 1)] as Lane
  }

  hasEnded(op: OpId): boolean {
    if (op < this.#oldest) return true
    const slot = op & (this.#capacity - 1)
    return this.#ended(this.#lanes[slot] as Lane, this.#tokens[slot]!)
  }

  /** Every op that has not ended, in program order, with what it waits for: empty unless that is kept. */
  *open(): Generator<PendingOp> {
    for (let op = this.#oldest; op < this.#next; op++) {
      if (this.hasEnded(op)) continue
      const slot = op & (this.#capacity - 1)
      const edges: Array<OpId> = []
      const kept = this.#edges?.subarray(slot * laneCount, (slot + 1) * laneCount) ?? []
      for (const edge of kept) {
        if (edge === none) break
        edges.push(edge)
      }
      yield { op, lane: this.#lanes[slot] as Lane, edges, meeting: this.#meetings?.[slot] }
    }
  }

  #makeRoom(): void {
    while (this.#oldest < this.#next && this.hasEnded(this.#oldest)) this.#oldest++
    // Growing while half is in use keeps the cost of looking small beside that of adding.
    if (2 * (this.#next - this.#oldest) < this.#capacity) return
    const [lanes, tokens, edges, meetings] = [this.#lanes, this.#tokens, this.#edges, this.#meetings]
    const before = this.#capacity - 1
    this.#capacity *= 2
    this.#lanes = new Uint8Array(this.#capacity)
    this.#tokens = new Float64Array(this.#capacity)
    if (edges !== undefined) this.#edges = new Int32Array(this.#capacity * laneCount).fill(none)
    if (meetings !== undefined) this.#meetings = []
    for (let op = this.#oldest; op < this.#next; op++) {
      const [from, to] = [op & before, op & (this.#capacity - 1)]
      this.#lanes[to] = lanes[from]!
      this.#tokens[to] = tokens[from]!
      if (edges !== undefined)
        this.#edges!.set(edges.subarray(from * laneCount, (from + 1) * laneCount), to * laneCount)
      if (meetings !== undefined) this.#meetings![to] = meetings[from]
    }
  }
}
