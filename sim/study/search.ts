// A search along a grid: where a metric crosses a target. Finds out by itself whether the metric rises or falls along the grid,
// says where a crossing lies outside, and says when the metric does neither. Knows nothing of what a grid value means.
import * as Effect from "effect/Effect"

/** Where the grid value that was found lies. */
export type Reached =
  /** Between two grid values, or on one: the metric is beyond the target on the other side. */
  | "inside"
  /** Nowhere along the grid is the metric beyond the target: what was found is an end of the grid, not the crossing. */
  | "everywhere"
  /** The metric is beyond the target everywhere: nothing was found. */
  | "nowhere"
  /** The metric neither rises nor falls along the grid, so that there is no one crossing: nothing was found. */
  | "unclear"

export interface Crossing {
  readonly reached: Reached
  /** Of the values at which the metric is at most the target, the last before it is more; undefined where there is none. */
  readonly index: number | undefined
  readonly direction: "rises" | "falls" | "neither"
}

/** Differences below it are rounding, not a change of direction. */
const still = 1e-9

/**
 * Bisection: some log2(count) evaluations, both ends and at least one value between. A metric that rises (utilisation over bandwidth) crosses its target
 * upward, and the last value that is at most the target is found; one that falls (step time over bandwidth) crosses it
 * downward, and the first is. Every value that was looked at must fit the direction.
 */
export const crossing = <E, R>(
  count: number,
  target: number,
  metricAt: (index: number) => Effect.Effect<number, E, R>
): Effect.Effect<Crossing, E, R> =>
  Effect.gen(function* () {
    const seen = new Map<number, number>()
    const at = (index: number) =>
      Effect.tap(metricAt(index), (value) => Effect.sync(() => seen.set(index, value)))
    const first = yield* at(0)
    const last = yield* at(count - 1)
    const rises = last >= first
    // Read so that the metric rises: from the end where it is least.
    const place = (k: number): number => (rises ? k : count - 1 - k)
    // Invariant: at most the target at `low` (-1: before the grid), more at `high` (or past the grid).
    let low = -1
    let high = count
    if ((rises ? first : last) > target) high = 0
    else if ((rises ? last : first) <= target) low = count - 1
    else [low, high] = [0, count - 1]
    // Ends on one side say nothing of what lies between: one look there.
    if (high - low === 1 && count > 2) yield* at((count - 1) >> 1)
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if ((yield* at(place(middle))) <= target) low = middle
      else high = middle
    }
    const inOrder = [...seen].toSorted(([a], [b]) => a - b).map(([, value]) => value)
    const steady = inOrder.every((value, i) => {
      if (Number.isNaN(value)) return false
      if (i === 0) return true
      const before = inOrder[i - 1]!
      return (rises ? before - value : value - before) <= still * Math.abs(value)
    })
    if (!steady) return { reached: "unclear", index: undefined, direction: "neither" }
    const direction = rises ? "rises" : "falls"
    if (low < 0) return { reached: "nowhere", index: undefined, direction }
    return { reached: high === count ? "everywhere" : "inside", index: place(low), direction }
  })
