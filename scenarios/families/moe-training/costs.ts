// What ops of MoE training cost: matrix products by a line over multiply-accumulates or by a measured table, collectives by
// lines or tables between and inside nodes, everything else by roofline. A line knows its unit, dtype and scope.
import type { FittedCost } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import { secondsAt, sizeIn } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import type { Sizes } from "../../../core/kernels/measure.ts"
import { dtypeBits } from "../../../core/machine/tensor.ts"
import type { CollectiveCost } from "../../../core/profile.ts"
import { statedSource } from "../../../core/cost/cost-model.ts"
import type { CostSource } from "../../../core/cost/op-table.ts"

export type CollectiveOp = "all_to_all" | "all_reduce" | "all_gather" | "reduce_scatter"

/** A line as two rows of a table, which interpolates it exactly at any size. */
export const rowsOfLine = (
  op: CollectiveOp,
  line: FittedCost,
  ranks: number,
  perNode: number
): ReadonlyArray<CollectiveCost> => {
  const bytesPerElement = dtypeBits[line.dtype] / 8
  return [0, 2 ** 40].map((inputBytes) => ({
    op,
    ranks,
    sizeBytes: op === "reduce_scatter" ? inputBytes / ranks : inputBytes,
    medianSeconds: secondsAt(line, sizeIn(line, inputBytes / bytesPerElement, ranks, perNode, op)),
    link: "unshaped"
  }))
}

export const macsOf = (sizes: Sizes): number => sizes["m"]! * sizes["k"]! * sizes["n"]!

/** Matrix products by a line over multiply-accumulates in the line's own dtype; wider numbers count as more. */
export const productLine = (line: FittedCost): CostSource =>
  statedSource("product", ({ sizes, dtype }) => {
    const seconds = secondsAt(line, (macsOf(sizes) * dtypeBits[dtype]) / dtypeBits[line.dtype])
    const detail = `by the line of ${line.op} over multiply-accumulates`
    return dtype === line.dtype
      ? { seconds, provenance: "interpolated", detail }
      : { seconds, provenance: "scaled", detail: `${detail}, from ${line.dtype} to ${dtype} by bits` }
  })
