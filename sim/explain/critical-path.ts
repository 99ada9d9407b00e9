// What the end of a stretch of time waited for, op by op, back to its start. Knows timelines only: lanes, times and
// which op's end let which op start.
import { Lane } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"

/**
 * `compute`: a kernel ran. `communication`: a collective moved bytes. `copy`: host and device exchanged data.
 * `latency`: everything an op waited for had ended, but it had not begun; or, where the wire's latency is known, a
 * collective's first bytes were under way. `host`: all else was ready, but the host had still to launch the op. `asleep`: the
 * program slept until some moment (its storage had taken a checkpoint, a request came). `placement`: a collective's kernels waited for
 * multiprocessors that a kernel of the rank held. `idle`: nothing on record was the reason.
 */
export type PathKind =
  "compute" | "communication" | "copy" | "latency" | "host" | "asleep" | "placement" | "idle"

/** The order reports list them in. */
export const pathKinds: ReadonlyArray<PathKind> = [
  "compute",
  "communication",
  "copy",
  "latency",
  "host",
  "asleep",
  "placement",
  "idle"
]

export interface PathSegment {
  readonly kind: PathKind
  /** The op; for `latency`, `host`, `asleep` and `placement` the op that was about to start; -1 for `idle` with nothing after it. */
  readonly row: number
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** Seconds of a collective's time, from its start, that pass before its bytes move; 0 where unknown. */
export type WireLatency = (row: number) => number

const kindOfLane: Readonly<Record<Lane, PathKind>> = {
  [Lane.compute]: "compute",
  [Lane.inter]: "communication",
  [Lane.intra]: "communication",
  [Lane.h2d]: "copy",
  [Lane.d2h]: "copy"
}

/** What kind of work a row is. */
export const kindOf = (timeline: Timeline, row: number): PathKind => kindOfLane[timeline.lane[row]! as Lane]

/** Rows of one rank by the time they ended, and each row's place in that order. */
interface EndOrder {
  readonly rows: ReadonlyArray<number>
  readonly place: ReadonlyMap<number, number>
}

/** Walks a timeline backwards; keeps what it had to sort, so make one per timeline and reuse it. */
export class CriticalPath {
  readonly #timeline: Timeline
  readonly #wireLatencySeconds: WireLatency
  readonly #endOrders = new Map<number, EndOrder>()

  constructor(timeline: Timeline, wireLatencySeconds: WireLatency = () => 0) {
    this.#timeline = timeline
    this.#wireLatencySeconds = wireLatencySeconds
  }

  /**
   * Segments from `fromSeconds` to `toSeconds`, ascending, without gap or overlap. The last one ends with `row`, which
   * must have ended by then. Where no op let one start, the rank's op that ended last before it is taken as the reason
   * (a program that waited to read a value, say), and time between the two is idle.
   */
  endingWith(row: number, fromSeconds: number, toSeconds: number): ReadonlyArray<PathSegment> {
    return this.#walk(row, toSeconds, fromSeconds)
  }

  /** As `endingWith`, for what happened before `row` started at `toSeconds`: its own time is not part of it. */
  startOf(row: number, fromSeconds: number, toSeconds: number): ReadonlyArray<PathSegment> {
    const segments: Array<PathSegment> = []
    const before = this.#reasonOf(row, toSeconds, fromSeconds, segments)
    return before < 0
      ? segments.toReversed()
      : [...this.#walk(before, this.#clip(before, toSeconds), fromSeconds), ...segments.toReversed()]
  }

  /** Time at which `row` ended, but no later than `toSeconds`. */
  #clip(row: number, toSeconds: number): number {
    return Math.min(this.#timeline.endSeconds[row]!, toSeconds)
  }

  #walk(last: number, toSeconds: number, fromSeconds: number): Array<PathSegment> {
    const { startSeconds, endSeconds } = this.#timeline
    const segments: Array<PathSegment> = []
    let row = last
    let time = toSeconds
    const push = (kind: PathKind, of: number, from: number): void => {
      if (from < time) segments.push({ kind, row: of, fromSeconds: from, toSeconds: time })
      time = Math.min(time, from)
    }
    // Ops without duration could cause each other in a malformed timeline; no path visits a row twice.
    for (let visits = 0; visits <= startSeconds.length && row >= 0 && time > fromSeconds; visits++) {
      push("idle", row, Math.max(fromSeconds, endSeconds[row]!))
      const start = startSeconds[row]!
      const kind = kindOf(this.#timeline, row)
      if (kind === "communication") {
        const moving = start + Math.max(0, this.#wireLatencySeconds(row))
        push(kind, row, Math.max(fromSeconds, Math.min(time, moving)))
        push("latency", row, Math.max(fromSeconds, start))
      } else push(kind, row, Math.max(fromSeconds, start))
      if (time <= fromSeconds) break
      const gaps: Array<PathSegment> = []
      row = this.#reasonOf(row, time, fromSeconds, gaps)
      for (const gap of gaps) push(gap.kind, gap.row, gap.fromSeconds)
    }
    push("idle", -1, fromSeconds)
    return segments.toReversed()
  }

  /**
   * The row whose end let `row` start at `time`, or -1 when that was before `fromSeconds` or there is none. The time in
   * between, if any, is pushed to `gaps`.
   */
  #reasonOf(row: number, started: number, fromSeconds: number, gaps: Array<PathSegment>): number {
    const { cause, startSeconds, endSeconds, held } = this.#timeline
    let time = started
    const heldBy = (kind: PathKind, seconds: number): void => {
      const since = Math.max(fromSeconds, time - seconds)
      if (since < time) gaps.push({ kind, row, fromSeconds: since, toSeconds: time })
      time = since
    }
    if (held !== undefined) {
      heldBy("placement", held.placementSeconds[row]!)
      heldBy("host", held.hostSeconds[row]!)
      heldBy("asleep", held.asleepSeconds[row]!)
      if (time <= fromSeconds) return -1
    }
    let reason = cause[row]!
    let kind: PathKind = "latency"
    // A cause that had not even begun is none.
    if (reason < 0 || !(startSeconds[reason]! <= time)) {
      reason = this.#endedBefore(row, time)
      kind = "idle"
    }
    const since = reason < 0 ? fromSeconds : Math.max(fromSeconds, endSeconds[reason]!)
    if (since < time) gaps.push({ kind, row, fromSeconds: since, toSeconds: time })
    return reason < 0 || endSeconds[reason]! <= fromSeconds ? -1 : reason
  }

  /** The row of the same rank that ended last by `time`, other than `row` and what comes after it; -1 if none. */
  #endedBefore(row: number, time: number): number {
    const { endSeconds, rank } = this.#timeline
    const { rows, place } = this.#endOrder(rank[row]!)
    let low = 0
    let high = place.get(row) ?? rows.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (endSeconds[rows[middle]!]! <= time) low = middle + 1
      else high = middle
    }
    return low === 0 ? -1 : rows[low - 1]!
  }

  #endOrder(rank: number): EndOrder {
    const known = this.#endOrders.get(rank)
    if (known !== undefined) return known
    const { endSeconds, op } = this.#timeline
    const rows: Array<number> = []
    for (let row = 0; row < endSeconds.length; row++) {
      if (this.#timeline.rank[row] === rank && !Number.isNaN(endSeconds[row]!)) rows.push(row)
    }
    rows.sort((a, b) => endSeconds[a]! - endSeconds[b]! || op[a]! - op[b]!)
    const order: EndOrder = { rows, place: new Map(rows.map((row, index) => [row, index])) }
    this.#endOrders.set(rank, order)
    return order
  }
}
