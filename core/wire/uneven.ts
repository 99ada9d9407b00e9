// Collectives whose members put in different numbers of rows: what each moves, and which message of an even one is like it.
import { memberRows } from "../kernels/collectives.ts"
import type { Op } from "../machine/op.ts"
import { sizeBytesOf, type Dtype } from "../machine/tensor.ts"

/** What an uneven collective moves. */
export interface UnevenRows {
  /** For an all-to-all what each member sends to each, otherwise what each has. */
  readonly rows: ReadonlyArray<ReadonlyArray<number>>
  readonly rowBytes: number
  /** Of the even message that takes as long. */
  readonly messageBytes: number
}

/** Undefined for a collective whose members all put in as much. */
export const unevenRows = (op: Op): UnevenRows | undefined => {
  const text = memberRows(op.attributes)
  if (text === "") return undefined
  const rows = text.split(";").map((row) => row.split(",").map(Number))
  const tensor = op.reads[0]!
  const wire = op.attributes["wire"]
  const width = tensor.shape.slice(1).reduce((product, extent) => product * extent, 1)
  const rowBytes = sizeBytesOf(width, wire === undefined ? tensor.dtype : (wire as Dtype))
  const sum = (counts: ReadonlyArray<number>): number => counts.reduce((total, count) => total + count, 0)
  // The size to look up among measured, even ones: what the busiest member of an all-to-all sends or gets; around a ring,
  // where all blocks pass everyone, the mean, which for a reduce-scatter counts on all members.
  const total = sum(rows[0]!)
  const most =
    op.kernel.name === "all_to_all"
      ? Math.max(...rows.map((row) => sum(row)), ...rows.map((_, to) => sum(rows.map((row) => row[to]!))))
      : op.kernel.name === "all_gather"
        ? total / rows[0]!.length
        : total
  return { rows, rowBytes, messageBytes: most * rowBytes }
}
