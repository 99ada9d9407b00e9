// Matrix products looked up among measured ones: along the rows of the measured shape whose weight is nearest in size, between
// the two nearest amounts of work.
import type { OpCost } from "../../../core/profile.ts"
import { interpolate } from "../../../core/cost/cost-model.ts"

interface Series {
  /** k times n. */
  readonly weight: number
  readonly macs: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

/** @param rows measured products with attributes m, k and n */
export const productTable = (rows: ReadonlyArray<OpCost>): ((m: number, k: number, n: number) => number) => {
  const shapes = Map.groupBy(rows, ({ attributes }) => `${attributes["k"]} ${attributes["n"]}`)
  const all = [...shapes.values()].map((points): Series => {
    const sorted = points.toSorted((a, b) => a.attributes["m"]! - b.attributes["m"]!)
    const weight = sorted[0]!.attributes["k"]! * sorted[0]!.attributes["n"]!
    return {
      weight,
      macs: sorted.map(({ attributes }) => attributes["m"]! * weight),
      seconds: sorted.map(({ medianSeconds }) => medianSeconds)
    }
  })
  return (m, k, n) => {
    // Of a product's three extents the two largest stand for the weight: in a weight's gradient, tokens are summed over.
    const extents = [m, k, n].toSorted((a, b) => b - a)
    const weight = extents[0]! * extents[1]!
    const ratio = (series: Series): number => Math.max(series.weight / weight, weight / series.weight)
    let nearest = all[0]!
    for (const series of all) if (ratio(series) < ratio(nearest)) nearest = series
    const macs = m * k * n
    // Less work than was measured takes as long as the least that was.
    if (macs <= nearest.macs[0]!) return nearest.seconds[0]!
    return interpolate(nearest.macs, nearest.seconds, macs).value
  }
}
