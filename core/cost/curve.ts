// Times between measured points: straight lines, which is what a fixed cost and a rate make, or bent where a message's time grows
// far slower than its bytes. Knows nothing of what is measured.

import { exp, log } from "../elementary.ts"

/** Piecewise linear through the points; the first and last pieces extend beyond them, and never below zero. */
export const interpolate = (
  at: ReadonlyArray<number>,
  values: ReadonlyArray<number>,
  x: number
): { readonly value: number; readonly inside: boolean } => {
  const last = at.length - 1
  if (last === 0) return { value: values[0]!, inside: x === at[0] }
  let i = 1
  while (i < last && at[i]! < x) i++
  const share = (x - at[i - 1]!) / (at[i]! - at[i - 1]!)
  const value = values[i - 1]! + share * (values[i]! - values[i - 1]!)
  return { value: Math.max(0, value), inside: x >= at[0]! && x <= at[last]! }
}

/**
 * Beyond the largest message: on the line from the largest that took less time, for a message that was sent faster than a smaller one
 * says nothing of how fast bytes are. Where none took less, as of one message alone, at the largest's own rate.
 */
const beyond = (bytes: ReadonlyArray<number>, seconds: ReadonlyArray<number>, size: number): number => {
  const [to, longest] = [bytes.at(-1)!, seconds.at(-1)!]
  const less = seconds.findLastIndex((one) => one < longest)
  if (less < 0) return (longest * size) / to
  return interpolate([bytes[less]!, to], [seconds[less]!, longest], size).value
}

/**
 * As `interpolate`, for messages. Where time grows as fast as bytes the line is right; where it grows slower, software changes its
 * ways in between (NCCL's protocols), and the truth lies between the line and the power law through both points: half way to the
 * power law where time does not grow at all. That half was chosen by leaving out, in turn, each inner row of the tables in
 * traces/tables of collectives on unshaped links: 10.3 % off in the mean and -0.3 % of bias, where straight lines have 11.4 and
 * -7.1 %. It is calibrated on those rows.
 */
export const interpolateMessage = (
  bytes: ReadonlyArray<number>,
  seconds: ReadonlyArray<number>,
  size: number
): { readonly value: number; readonly inside: boolean } => {
  const last = bytes.length - 1
  if (size < bytes[0]!) return { value: seconds[0]!, inside: false }
  if (size > bytes[last]!) return { value: beyond(bytes, seconds, size), inside: false }
  const line = interpolate(bytes, seconds, size)
  const next = bytes.findIndex((one) => one >= size)
  if (next <= 0 || bytes[next] === size) return line
  const [from, to] = [bytes[next - 1]!, bytes[next]!]
  const [first, second] = [seconds[next - 1]!, seconds[next]!]
  // A message has a byte at least: a smaller one comes of a damaged table, and overflows the ratio.
  if (!(from >= 1 && first > 0 && second >= first)) return line
  const growth = log(second / first) / log(to / from)
  if (growth >= 1) return line
  const power = first * exp(growth * log(size / from))
  const share = 0.5 * (1 - growth)
  return { value: line.value * exp(share * log(power / line.value)), inside: line.inside }
}

/** Where a curve was asked for a time. */
export type Where = "point" | "between" | "below" | "above"

/** Measured seconds over work, where work is the seconds it would take at the best rates measured. */
export class WorkCurve {
  readonly at: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
  readonly #least: number

  /** Points of the same work are taken at their mean. `least`: no launch takes less. */
  constructor(points: ReadonlyArray<{ readonly work: number; readonly seconds: number }>, least: number) {
    const at: Array<number> = []
    const sums: Array<{ seconds: number; count: number }> = []
    for (const { work, seconds } of points.toSorted((a, b) => a.work - b.work)) {
      const last = at.at(-1)
      if (last !== undefined && work - last <= 1e-9 * work) {
        const sum = sums.at(-1)!
        sum.seconds += seconds
        sum.count++
      } else {
        at.push(work)
        sums.push({ seconds, count: 1 })
      }
    }
    this.at = at
    this.seconds = sums.map(({ seconds, count }) => seconds / count)
    this.#least = least
  }

  /**
   * Between points by straight lines. Below the first along the first piece (of a single point in proportion), but no less
   * than `least`; above the last at the rate of the last piece, which is no better than the best measured and no worse than
   * the last point's mean.
   */
  secondsAt(work: number): { readonly seconds: number; readonly where: Where } {
    const { at, seconds } = this
    const last = at.length - 1
    if (work < at[0]! * (1 - 1e-9)) {
      const first = seconds[0]!
      const slope = last === 0 ? first / at[0]! : Math.max(0, (seconds[1]! - first) / (at[1]! - at[0]!))
      const along = first - slope * (at[0]! - work)
      return { seconds: Math.max(Math.min(this.#least, first), along), where: "below" }
    }
    if (work > at[last]! * (1 + 1e-9)) {
      const mean = seconds[last]! / at[last]!
      const slope = last === 0 ? mean : (seconds[last]! - seconds[last - 1]!) / (at[last]! - at[last - 1]!)
      const rate = Math.min(Math.max(slope, 1), Math.max(mean, 1))
      return { seconds: seconds[last]! + (work - at[last]!) * rate, where: "above" }
    }
    const point = at.findIndex((one) => Math.abs(one - work) <= 1e-9 * one)
    if (point >= 0) return { seconds: seconds[point]!, where: "point" }
    return { seconds: interpolate(at, seconds, work).value, where: "between" }
  }
}
