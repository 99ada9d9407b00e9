// Keeps what a real run did: each rank's op log with its edges as derived at submission, and, from the times that the native
// layer took, the timeline. The same two records as a simulation makes.
import { Dictionary } from "../core/dictionary.ts"
import { memberRows } from "../core/kernels/collectives.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import type { Dependencies } from "../core/machine/dependencies.ts"
import { laneCount } from "../core/machine/lane.ts"
import type { Op, OpId } from "../core/machine/op.ts"
import type { OpLog, OpLogEntry, Timeline } from "../core/machine/timeline.ts"
import type { OpTime } from "./native.ts"

interface Rows {
  readonly entries: Array<OpLogEntry>
  readonly times: Array<OpTime | undefined>
}

export class Recorder {
  // By rank; also of a rank that submits nothing.
  readonly #ranks: ReadonlyMap<number, Rows>

  constructor(ranks: ReadonlyArray<number>) {
    this.#ranks = new Map(ranks.map((rank) => [rank, { entries: [], times: [] }]))
  }

  submitted(
    rank: number,
    id: OpId,
    step: number,
    op: Op,
    scalars: Scalars | undefined,
    dependencies: Dependencies
  ): void {
    const rows = op.group === undefined ? "" : memberRows(op.attributes)
    this.#ranks.get(rank)!.entries.push({
      op: id,
      label: op.label,
      kernel: op.kernel.name,
      lane: op.lane,
      step,
      group: op.group?.name,
      sizeBytes: op.sizeBytes,
      ...(rows === "" ? {} : { rows }),
      ...(scalars === undefined || scalars.length === 0 ? {} : { scalars: [...scalars] }),
      after: Array.from(dependencies.edges.subarray(0, dependencies.edgeCount))
    })
  }

  ended(rank: number, times: ReadonlyArray<OpTime>): void {
    const rows = this.#ranks.get(rank)!
    for (const time of times) rows.times[time.op] = time
  }

  opLogs(): ReadonlyArray<OpLog> {
    return this.#inOrder().map(([rank, { entries }]) => ({ rank, entries }))
  }

  /** Rank by rank, each in program order. Times are counted from `originSeconds` of the native clock. */
  timeline(originSeconds: number): Timeline {
    const ranks = this.#inOrder()
    const count = ranks.reduce((sum, [, { entries }]) => sum + entries.length, 0)
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
      cause: new Int32Array(count).fill(-1)
    }
    let row = 0
    for (const [rank, { entries, times }] of ranks) {
      const firstRow = row
      const tails = new Int32Array(laneCount).fill(-1)
      for (const entry of entries) {
        timeline.rank[row] = rank
        timeline.op[row] = entry.op
        timeline.lane[row] = entry.lane
        timeline.step[row] = entry.step
        timeline.label[row] = labels.code(entry.label)
        timeline.kernel[row] = kernels.code(entry.kernel)
        timeline.sizeBytes[row] = entry.sizeBytes
        const time = times[entry.op]
        if (time !== undefined) {
          timeline.startSeconds[row] = time.startSeconds - originSeconds
          timeline.endSeconds[row] = time.endSeconds - originSeconds
        }
        // The last of its predecessors to end is what let it start.
        let cause = tails[entry.lane]!
        for (const op of entry.after) {
          const other = firstRow + op
          if (cause < 0 || timeline.endSeconds[other]! > timeline.endSeconds[cause]!) cause = other
        }
        timeline.cause[row] = cause
        tails[entry.lane] = row
        row++
      }
    }
    return timeline
  }

  #inOrder(): ReadonlyArray<readonly [number, Rows]> {
    return [...this.#ranks].toSorted(([a], [b]) => a - b)
  }
}
