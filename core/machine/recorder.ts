// Keeps what a run did: each rank's op log with its edges as derived at submission, and when each op started and ended, as a
// timeline. The same record of every machine, each of which says its times in its own way.
import { Dictionary } from "../dictionary.ts"
import { memberRows } from "../kernels/collectives.ts"
import type { Scalars } from "../kernels/scalars.ts"
import { laneCount } from "./lane.ts"
import type { Op, OpId } from "./op.ts"
import type { OpLog, OpLogEntry, Timeline } from "./timeline.ts"

/** The op of a rank whose end let another start. */
export interface Cause {
  readonly rank: number
  readonly op: OpId
}

/** What held an op up directly before its start, seconds. */
export interface Delay {
  readonly host: number
  readonly asleep: number
  /** Last of all: kernels of the rank held the multiprocessors that the op's own needed. */
  readonly placement: number
}

interface RankRecord {
  readonly entries: Array<OpLogEntry>
  readonly start: Array<number>
  readonly end: Array<number>
  readonly cause: Array<Cause | undefined>
  readonly delays: Array<Delay | undefined>
}

export class Recorder {
  // By rank; also of a rank that submits nothing.
  readonly #ranks: ReadonlyMap<number, RankRecord>
  #delayed = false

  /** For a run of these ranks. */
  constructor(ranks: ReadonlyArray<number>) {
    const ordered = ranks.toSorted((a, b) => a - b)
    this.#ranks = new Map(
      ordered.map((rank) => [rank, { entries: [], start: [], end: [], cause: [], delays: [] }])
    )
  }

  /** Told of every op in program order, before it can start; `edges[0 .. edgeCount)` are the ops that it waits for. */
  submitted(
    rank: number,
    step: number,
    op: Op,
    scalars: Scalars | undefined,
    edges: Int32Array,
    edgeCount: number
  ): void {
    const { entries } = this.#ranks.get(rank)!
    const rows = op.group === undefined ? "" : memberRows(op.attributes)
    entries.push({
      op: entries.length,
      label: op.label,
      ...(op.role === undefined ? {} : { role: op.role }),
      kernel: op.kernel.name,
      lane: op.lane,
      step,
      group: op.group?.name,
      ...(op.group === undefined ? {} : { members: op.group.ranks }),
      sizeBytes: op.sizeBytes,
      ...(rows === "" ? {} : { rows }),
      ...(scalars === undefined || scalars.length === 0 ? {} : { scalars: [...scalars] }),
      after: Array.from(edges.subarray(0, edgeCount))
    })
  }

  /** `cause` where the machine knows it; see `timeline`. */
  started(rank: number, op: OpId, seconds: number, cause?: Cause, delay?: Delay): void {
    const record = this.#ranks.get(rank)!
    record.start[op] = seconds
    record.cause[op] = cause
    if (delay === undefined) return
    record.delays[op] = delay
    this.#delayed = true
  }

  ended(rank: number, op: OpId, seconds: number): void {
    this.#ranks.get(rank)!.end[op] = seconds
  }

  opLogs(): ReadonlyArray<OpLog> {
    return [...this.#ranks].map(([rank, { entries }]) => ({ rank, entries }))
  }

  /**
   * Rank by rank, each in program order; times are NaN where none were told. `causes`: those that the machine told, or, for
   * one that knows only times, of the ops that each waited for the one that ended last.
   */
  timeline(causes: "told" | "by-time"): Timeline {
    const firstRows = new Map<number, number>()
    let count = 0
    for (const [rank, { entries }] of this.#ranks) {
      firstRows.set(rank, count)
      count += entries.length
    }
    const labels = new Dictionary()
    const kernels = new Dictionary()
    const timeline = {
      rank: new Int32Array(count),
      op: new Int32Array(count),
      lane: new Uint8Array(count),
      step: new Int32Array(count),
      label: new Int32Array(count),
      labels: labels.values,
      kernel: new Int32Array(count),
      kernels: kernels.values,
      startSeconds: new Float64Array(count).fill(NaN),
      endSeconds: new Float64Array(count).fill(NaN),
      sizeBytes: new Float64Array(count),
      cause: new Int32Array(count).fill(-1),
      ...(this.#delayed
        ? {
            held: {
              hostSeconds: new Float64Array(count),
              asleepSeconds: new Float64Array(count),
              placementSeconds: new Float64Array(count)
            }
          }
        : {})
    }
    for (const [rank, { entries, start, end, cause, delays }] of this.#ranks) {
      const firstRow = firstRows.get(rank)!
      for (const entry of entries) {
        const row = firstRow + entry.op
        timeline.rank[row] = rank
        timeline.op[row] = entry.op
        timeline.lane[row] = entry.lane
        timeline.step[row] = entry.step
        timeline.label[row] = labels.code(entry.label)
        timeline.kernel[row] = kernels.code(entry.kernel)
        timeline.sizeBytes[row] = entry.sizeBytes
        timeline.startSeconds[row] = start[entry.op] ?? NaN
        timeline.endSeconds[row] = end[entry.op] ?? NaN
        const delay = delays[entry.op]
        if (timeline.held !== undefined && delay !== undefined) {
          timeline.held.hostSeconds[row] = delay.host
          timeline.held.asleepSeconds[row] = delay.asleep
          timeline.held.placementSeconds[row] = delay.placement
        }
        const told = cause[entry.op]
        if (told !== undefined) timeline.cause[row] = firstRows.get(told.rank)! + told.op
      }
      if (causes === "by-time") causesByTime(timeline, firstRow, entries)
    }
    return timeline
  }
}

/** The last to end of what each op waited for, by lane and edges, is what let it start. */
const causesByTime = (
  { cause, endSeconds }: Timeline,
  firstRow: number,
  entries: ReadonlyArray<OpLogEntry>
): void => {
  const tails = new Int32Array(laneCount).fill(-1)
  for (const { op, lane, after } of entries) {
    let last = tails[lane]!
    for (const edge of after) {
      const other = firstRow + edge
      if (last < 0 || endSeconds[other]! > endSeconds[last]!) last = other
    }
    cause[firstRow + op] = last
    tails[lane] = firstRow + op
  }
}
