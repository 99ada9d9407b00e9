// Where two measured curves cross, and where one reaches a value: straight lines between neighbouring points in
// log-log, which is exact for power laws. Pure; knows nothing of charts.

/** Points of a curve, x ascending. What is not positive and finite cannot be on a log scale and is left out. */
export interface Curve {
  readonly x: ReadonlyArray<number>
  readonly y: ReadonlyArray<number>
}

interface Crossing {
  readonly x: number
  readonly y: number
  /** Whether the first curve is the lower one before (left of) the crossing. */
  readonly firstIsLowerBefore: boolean
}

const onLogScale = (value: number): boolean => value > 0 && value < Infinity

/** ln of the points at which both curves are known. */
const common = (first: Curve, second: Curve) => {
  const secondAt = new Map(second.x.map((x, i) => [x, second.y[i]!]))
  const x: Array<number> = []
  const y: Array<number> = []
  /** ln of first over second. */
  const ratio: Array<number> = []
  first.x.forEach((at, i) => {
    const a = first.y[i]!
    const b = secondAt.get(at)
    if (b === undefined || !onLogScale(at) || !onLogScale(a) || !onLogScale(b)) return
    x.push(Math.log(at))
    y.push(Math.log(a))
    ratio.push(Math.log(a / b))
  })
  return { x, y, ratio }
}

/**
 * Where the curves change places, x ascending. Curves closer than `tolerance` (relative) count as equal there: curves
 * that merge do not cross, and where they touch or run together and then part on the other side, they cross once.
 */
export const crossings = (first: Curve, second: Curve, tolerance = 0.01): ReadonlyArray<Crossing> => {
  const { x, y, ratio } = common(first, second)
  const apart = Math.log1p(tolerance)
  const found: Array<Crossing> = []
  let before = -1
  for (let i = 0; i < ratio.length; i++) {
    if (Math.abs(ratio[i]!) <= apart) continue
    if (before >= 0 && ratio[before]! > 0 !== ratio[i]! > 0) {
      const at = changeOfSign(x, ratio, before, i)
      found.push({ x: Math.exp(at), y: Math.exp(along(x, y, at)), firstIsLowerBefore: ratio[before]! < 0 })
    }
    before = i
  }
  return found
}

/** Where `ratio` passes zero for the first time between points `from` and `to`; the middle of where it stays zero. */
const changeOfSign = (
  x: ReadonlyArray<number>,
  ratio: ReadonlyArray<number>,
  from: number,
  to: number
): number => {
  const positive = ratio[from]! > 0
  for (let i = from; i < to; i++) {
    const a = ratio[i]!
    let next = i + 1
    while (next < to && ratio[next] === 0) next++
    const b = ratio[next]!
    if (b > 0 === positive || b === 0) continue
    if (next > i + 1) return (x[i + 1]! + x[next - 1]!) / 2
    return x[i]! + ((x[next]! - x[i]!) * a) / (a - b)
  }
  return x[to]!
}

/** Piecewise linear through (x, y) at `at`, which lies inside. */
const along = (x: ReadonlyArray<number>, y: ReadonlyArray<number>, at: number): number => {
  let i = 1
  while (i < x.length - 1 && x[i]! < at) i++
  const share = (at - x[i - 1]!) / (x[i]! - x[i - 1]!)
  return y[i - 1]! + share * (y[i]! - y[i - 1]!)
}

/**
 * Least x from which on the curve stays at or below `y`; undefined when its last point is above. Where already its
 * first point and all after it are at or below, that first x.
 */
export const reaches = (curve: Curve, y: number): number | undefined => {
  const points = curve.x
    .map((x, i) => [x, curve.y[i]!] as const)
    .filter(([x, value]) => onLogScale(x) && onLogScale(value))
  // Simulated values that are equal but for rounding are equal.
  const limit = y * (1 + 1e-9)
  let i = points.length - 1
  if (i < 0 || points[i]![1] > limit) return undefined
  while (i > 0 && points[i - 1]![1] <= limit) i--
  if (i === 0) return points[0]![0]
  const [x1, y1] = points[i]!
  const [x0, y0] = points[i - 1]!
  const share = Math.min(1, Math.log(y0 / y) / Math.log(y0 / y1))
  return x0 * (x1 / x0) ** share
}

/** Value of the curve at `x` by the same interpolation; undefined outside it. */
export const valueAt = (curve: Curve, x: number): number | undefined => {
  const exact = curve.x.indexOf(x)
  if (exact >= 0) return curve.y[exact]
  const after = curve.x.findIndex((other) => other > x)
  if (after <= 0) return undefined
  const points = [curve.x[after - 1]!, curve.x[after]!, curve.y[after - 1]!, curve.y[after]!, x]
  if (!points.every(onLogScale)) return undefined
  const share = Math.log(x / points[0]!) / Math.log(points[1]! / points[0]!)
  return points[2]! * (points[3]! / points[2]!) ** share
}
