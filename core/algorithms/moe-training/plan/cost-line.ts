// Cost of one operation as a straight line over its size: t = fixed + perUnit * n, fitted to measurements by least squares.
// A size means nothing without its unit, dtype and scope, so a fit carries them. Knows nothing of schedules or machines.
import { dtypeBits, type Dtype } from "../../../machine/tensor.ts"

/** t(n) = fixedSeconds + n * secondsPerUnit. The papers' alpha and beta. */
interface Line {
  readonly fixedSeconds: number
  readonly secondsPerUnit: number
}

/** What a size counts. `MAC`: multiply-accumulates of a matrix product. */
export const costUnits = ["elements", "bytes", "MAC"] as const
type CostUnit = (typeof costUnits)[number]

/**
 * Which end of an operation a size is of. `input`: what one rank puts in. `gathered`: what the group holds together, the
 * output of an all-gather and the input of a reduce-scatter. `node`: what the ranks of one node put in together.
 */
export const costScopes = ["input", "gathered", "node"] as const
type CostScope = (typeof costScopes)[number]

interface SizeMeaning {
  readonly unit: CostUnit
  readonly dtype: Dtype
  readonly scope: CostScope
}

/** A fitted cost and how well it fits. */
export interface FittedCost extends Line, SizeMeaning {
  readonly op: string
  /** Mean and largest of |fitted / measured - 1| over the measurements; 0 where nothing was fitted (a published line). */
  readonly meanError: number
  readonly maxError: number
  readonly points: number
}

interface Measurement {
  readonly size: number
  readonly seconds: number
}

export const secondsAt = (line: Line, size: number): number => line.fixedSeconds + size * line.secondsPerUnit

/**
 * `absolute`: least squares of seconds, as FSMoE (section 4.1) fits its models; large sizes decide. `relative`: least
 * squares of relative errors, for measurements that span orders of magnitude.
 */
type Weighting = "absolute" | "relative"

/**
 * Fits a line. A slope or a fixed cost below zero has no meaning: the better of the two constrained fits is taken then.
 * Throws RangeError for fewer than two sizes or a time that is not positive.
 */
export const fitLine = (
  op: string,
  meaning: SizeMeaning,
  measurements: ReadonlyArray<Measurement>,
  weighting: Weighting = "absolute"
): FittedCost => {
  const sizes = new Set(measurements.map(({ size }) => size))
  if (sizes.size < 2) throw new RangeError(`${op}: a line needs measurements of two sizes, not ${sizes.size}`)
  const bad = measurements.find(({ seconds, size }) => !(seconds > 0 && size >= 0))
  if (bad !== undefined) throw new RangeError(`${op}: measured ${bad.seconds} s at size ${bad.size}`)
  const line = constrained(measurements, weighting)
  const errors = measurements.map(({ size, seconds }) => Math.abs(secondsAt(line, size) / seconds - 1))
  return {
    op,
    ...meaning,
    ...line,
    meanError: errors.reduce((sum, error) => sum + error, 0) / errors.length,
    maxError: Math.max(...errors),
    points: measurements.length
  }
}

const constrained = (measurements: ReadonlyArray<Measurement>, weighting: Weighting): Line => {
  let [w, x, y, xx, xy] = [0, 0, 0, 0, 0]
  for (const { size, seconds } of measurements) {
    const weight = weighting === "absolute" ? 1 : 1 / (seconds * seconds)
    w += weight
    x += weight * size
    y += weight * seconds
    xx += weight * size * size
    xy += weight * size * seconds
  }
  const slope = (w * xy - x * y) / (w * xx - x * x)
  const fixed = (y - slope * x) / w
  if (slope < 0) return { fixedSeconds: y / w, secondsPerUnit: 0 }
  if (fixed < 0) return { fixedSeconds: 0, secondsPerUnit: xy / xx }
  return { fixedSeconds: fixed, secondsPerUnit: slope }
}

/**
 * Size in a fit's own unit and scope of a collective of which one rank puts in `inputElements`; of a reduce-scatter, whose
 * input is already the whole, `input` means a rank's share of it.
 */
export const sizeIn = (
  { unit, dtype, scope }: SizeMeaning,
  inputElements: number,
  ranks: number,
  perNode: number,
  op: "all_to_all" | "all_reduce" | "all_gather" | "reduce_scatter"
): number => {
  if (unit === "MAC") throw new RangeError(`${op}: a collective has no MACs`)
  const own = op === "reduce_scatter" ? inputElements / ranks : inputElements
  const factor = {
    input: 1,
    gathered: op === "all_gather" || op === "reduce_scatter" ? ranks : 1,
    node: perNode
  }
  const elements = own * factor[scope]
  return unit === "bytes" ? (elements * dtypeBits[dtype]) / 8 : elements
}
