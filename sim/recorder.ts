// Keeps what a run did: a timeline row for each op and rank, and each rank's op log with its edges. Only runs that ask
// for it pay for it.
import { memberRows } from "../core/kernels/collectives.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import { Dictionary } from "../core/dictionary.ts"
import type { Dependencies } from "../core/machine/dependencies.ts"
import type { Op, OpId } from "../core/machine/op.ts"
import type { OpLog, OpLogEntry, Timeline } from "../core/machine/timeline.ts"
import type { Activity } from "./engine/engine.ts"

export class Recorder {
  readonly #rank: Array<number> = []
  readonly #op: Array<number> = []
  readonly #lane: Array<number> = []
  readonly #step: Array<number> = []
  readonly #label: Array<number> = []
  readonly #kernel: Array<number> = []
  readonly #size: Array<number> = []
  readonly #start: Array<number> = []
  readonly #end: Array<number> = []
  readonly #cause: Array<number> = []
  readonly #labels = new Dictionary()
  readonly #kernels = new Dictionary()
  // By rank; also of a rank that submits nothing.
  readonly #logs: ReadonlyMap<number, Array<OpLogEntry>>
  // A collective is one chain of activities and a row for each simulated member.
  readonly #rowsByFirst = new Map<Activity, Array<number>>()
  readonly #rowsByLast = new Map<Activity, Array<number>>()

  /** For a run that simulates these ranks. */
  constructor(ranks: ReadonlyArray<number>) {
    this.#logs = new Map(ranks.map((rank) => [rank, []]))
  }

  submitted(
    rank: number,
    id: OpId,
    step: number,
    op: Op,
    scalars: Scalars | undefined,
    dependencies: Dependencies,
    first: Activity,
    last: Activity
  ): void {
    const row = this.#rank.length
    this.#rank.push(rank)
    this.#op.push(id)
    this.#lane.push(op.lane)
    this.#step.push(step)
    this.#label.push(this.#labels.code(op.label))
    this.#kernel.push(this.#kernels.code(op.kernel.name))
    this.#size.push(op.sizeBytes)
    this.#start.push(NaN)
    this.#end.push(NaN)
    this.#cause.push(-1)
    append(this.#rowsByFirst, first, row)
    append(this.#rowsByLast, last, row)
    const rows = op.group === undefined ? "" : memberRows(op.attributes)
    this.#logs.get(rank)!.push({
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

  started(activity: Activity, timeSeconds: number, cause: Activity): void {
    const rows = this.#rowsByFirst.get(activity)
    if (rows === undefined) return
    const causes = this.#rowsByLast.get(cause)
    for (const row of rows) {
      this.#start[row] = timeSeconds
      // Of a collective's rows, prefer the one of the same rank.
      if (causes !== undefined) {
        this.#cause[row] = causes.find((other) => this.#rank[other] === this.#rank[row]) ?? causes[0]!
      }
    }
  }

  ended(activity: Activity, timeSeconds: number): void {
    const rows = this.#rowsByLast.get(activity)
    if (rows === undefined) return
    for (const row of rows) this.#end[row] = timeSeconds
  }

  timeline(): Timeline {
    return {
      rank: Int32Array.from(this.#rank),
      op: Int32Array.from(this.#op),
      lane: Uint8Array.from(this.#lane),
      step: Int32Array.from(this.#step),
      label: Int32Array.from(this.#label),
      labels: this.#labels.values,
      kernel: Int32Array.from(this.#kernel),
      kernels: this.#kernels.values,
      startSeconds: Float64Array.from(this.#start),
      endSeconds: Float64Array.from(this.#end),
      sizeBytes: Float64Array.from(this.#size),
      cause: Int32Array.from(this.#cause)
    }
  }

  opLogs(): ReadonlyArray<OpLog> {
    return [...this.#logs].map(([rank, entries]) => ({ rank, entries }))
  }
}

const append = (rows: Map<Activity, Array<number>>, activity: Activity, row: number): void => {
  const list = rows.get(activity)
  if (list === undefined) rows.set(activity, [row])
  else list.push(row)
}
