// What ops of MoE training cost: matrix products by a line over multiply-accumulates or by a measured table, collectives by
// lines or tables between and inside nodes, everything else by roofline. A line knows its unit, dtype and scope.
import type { FittedCost } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import { secondsAt, sizeIn } from "../../../core/algorithms/moe-training/plan/cost-line.ts"
import type { Op } from "../../../core/machine/op.ts"
import { dtypeBits } from "../../../core/machine/tensor.ts"
import type { CollectiveCost } from "../../../core/profile.ts"
import type { World } from "../../../core/world.ts"
import { aloneSeconds, type CollectiveOptions } from "../../../core/wire/alone.ts"
import type { CostModel, Estimate } from "../../../core/cost/cost-model.ts"
import { rooflineSeconds, type Device } from "../../../core/cost/roofline.ts"
import { Network } from "../../../core/wire/network.ts"
import { interchangeable } from "../../../core/wire/symmetry.ts"

/** Multiply-accumulates of a matrix product; undefined for other ops. */
export const macsOf = (
  op: Op
): { readonly m: number; readonly k: number; readonly n: number } | undefined => {
  if (!op.kernel.name.startsWith("linear.")) return undefined
  const [one, other] = op.reads
  const rows = one!.elements / one!.shape.at(-1)!
  switch (op.kernel.name) {
    case "linear.forward":
      return { m: rows, k: one!.shape.at(-1)!, n: other!.shape[0]! }
    case "linear.backward_input":
      return { m: rows, k: one!.shape.at(-1)!, n: other!.shape[1]! }
    default:
      return { m: one!.shape.at(-1)!, k: rows, n: other!.shape.at(-1)! }
  }
}

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

export interface MoeCostOptions {
  /** Seconds of a matrix product of m x k by k x n. */
  readonly productSeconds: ((m: number, k: number, n: number, op: Op) => number) | undefined
  /** Seconds of other ops that something is known of. */
  readonly otherSeconds?: ((op: Op) => number | undefined) | undefined
  /** For what else computes; free where there is none, and noted. */
  readonly device: Device | undefined
}

export const moeCostModel = ({ productSeconds, otherSeconds, device }: MoeCostOptions): CostModel => {
  const notes = new Map<string, Estimate>()
  return {
    seconds(op) {
      if (op.kernel.name === "barrier") return 0
      const macs = macsOf(op)
      if (macs !== undefined && productSeconds !== undefined) {
        return macs.m * macs.k * macs.n === 0 ? 0 : productSeconds(macs.m, macs.k, macs.n, op)
      }
      const known = otherSeconds?.(op)
      if (known !== undefined) return known
      const kernel = op.kernel.name
      if (device === undefined) {
        notes.set(kernel, { kernel, source: "free", detail: "no measurement and no device: counted as 0 s" })
        return 0
      }
      notes.set(kernel, {
        kernel,
        source: "roofline",
        detail: `${device.name}: peak rates, so a lower bound`
      })
      return rooflineSeconds(op.kernel.work(op.reads, op.writes, op.attributes), device)
    },
    get estimates() {
      return [...notes.values()]
    }
  }
}

/** Seconds of any op with only its like beside it: what planners ask. */
export const opSecondsIn = (
  world: World,
  costs: CostModel,
  collectives: CollectiveOptions
): ((op: Op) => number) => {
  const network = new Network(
    world,
    interchangeable(world, { rank: () => "", node: () => "", site: () => "" })
  )
  const known = new Map<string, (sizeBytes: number) => number>()
  return (op) => {
    if (op.group === undefined) return costs.seconds(op)
    const key = `${op.kernel.name} ${op.group.name}`
    let seconds = known.get(key)
    if (seconds === undefined) {
      known.set(key, (seconds = aloneSeconds(network, op.kernel.name, op.group, collectives)))
    }
    return seconds(op.sizeBytes)
  }
}
