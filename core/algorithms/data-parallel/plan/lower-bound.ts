// Bounds that no assignment of layers to iterations can beat, printed beside every plan. Know the objective (cost.ts)
// and nothing of any search.

import type { SyncProblem } from "./cost.ts"

/**
 * For each suffix of the layers, a lower bound on the exposed seconds of synchronising only that suffix:
 * `bounds[l]` is for layers l..L-1, so `bounds[0]` is the instance's and `bounds[L]` is 0. O(L^2) time, O(L) memory.
 *
 * Statement. Number the layers with c > 0 as 0..n-1 (notation of cost.ts). For an interval i..k let q = min(H, k-i+1) and
 *
 *   b(i,k) = sum_{i..k} c - sum_{k-q+1..k} R - (D_i + sum_{k-q+2..k} D).
 *
 * For every way of cutting 0..n-1 into consecutive intervals, sum over the intervals of max(0, b) is a lower bound.
 * The function returns the best cut, found by a dynamic programme.
 *
 * Proof. (1) One set: from the definition of W with l = max S, W(S) >= C(S) - R_{max S} - D_{min S}. (2) One interval:
 * let at most q of the sets restricted to it be non-empty, call them T_1..T_p, p <= q. Their maxima are p distinct
 * layers, and so are their minima, one of which is i. R and D are >= 0 and non-decreasing, so sum_j R_{max T_j} is at
 * most the R of the interval's q last layers and sum_j D_{min T_j} at most D_i plus the D of its q-1 last layers. Summing
 * (1) gives sum_j W(T_j) >= b(i,k); and W >= 0. (3) All intervals: W is superadditive, so each W(S_h) is at least the
 * sum over the intervals of W(S_h restricted to it). Sum over h and apply (2) to each interval.
 *
 * With single layers as intervals this contains sum_l max(0, c_l - R_l - D_l), what not even a private channel hides;
 * with one interval it contains "all communication minus all time that could hide it"; with 0..k the same for the layers
 * whose gradients come last. It is not always attained: deciding whether 0 can be is bin packing (let every layer but
 * one without parameters have the same R), hence strongly NP-hard.
 */
export const suffixLowerBounds = (problem: SyncProblem): Float64Array => {
  const sums = prefixSums(problem)
  const best = intervalBounds(problem.period, sums)
  const layers = problem.communicationSeconds.length
  const bounds = new Float64Array(layers + 1)
  let j = sums.count
  for (let layer = layers - 1; layer >= 0; layer--) {
    if (j > 0 && problem.communicationSeconds[layer]! > 0) j--
    bounds[layer] = best[j]!
  }
  return bounds
}

/** Prefix sums of c, R and D over the `count` layers that communicate: entry j covers the first j of them. */
interface PrefixSums {
  readonly count: number
  readonly c: Float64Array
  readonly r: Float64Array
  readonly d: Float64Array
}

const prefixSums = (problem: SyncProblem): PrefixSums => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const count = communicationSeconds.reduce((n, seconds) => (seconds > 0 ? n + 1 : n), 0)
  const c = new Float64Array(count + 1)
  const r = new Float64Array(count + 1)
  const d = new Float64Array(count + 1)
  let j = 0
  for (const [layer, seconds] of communicationSeconds.entries()) {
    if (seconds === 0) continue
    c[j + 1] = c[j]! + seconds
    r[j + 1] = r[j]! + backwardLeftSeconds[layer]!
    d[j + 1] = d[j]! + forwardLeftSeconds[layer]!
    j++
  }
  return { count, c, r, d }
}

/** The best cut into intervals of each suffix of the communicating layers. */
const intervalBounds = (period: number, { count, c, r, d }: PrefixSums): Float64Array => {
  const best = new Float64Array(count + 1)
  for (let i = count - 1; i >= 0; i--) {
    let most = best[i + 1]!
    const dueFirst = d[i + 1]! - d[i]!
    for (let end = i + 1; end <= count; end++) {
      const q = Math.min(period, end - i)
      const hidden = r[end]! - r[end - q]! + dueFirst + d[end]! - d[end - q + 1]!
      const bound = c[end]! - c[i]! - hidden
      if (bound > 0 && bound + best[end]! > most) most = bound + best[end]!
    }
    best[i] = most
  }
  return best
}

/**
 * Exposed seconds per period that no assignment can go below: the better of `suffixLowerBounds` and, for next-use, the
 * following bound, which takes into account that an iteration with a late first due point (large D) has no layer below
 * that point, so that the layers below crowd into fewer iterations.
 *
 * Statement. For a non-decreasing choice of minima m_1..m_H let p(k) be the number of m_j <= k and
 *
 *   X(m) = max_k [ C(<=k) + suffix(k+1) - (the p(k) largest R among 0..k) - sum of D_{m_j} over m_j <= k ],
 *
 * with suffix(k+1) the bound above for the layers after k. Then min_m X(m) is a lower bound.
 *
 * Proof. Take any assignment and let m_j be the minima of its non-empty sets. For every k, the sets restricted to 0..k are
 * empty but for p(k), which have p(k) distinct maxima and the same minima; step 1 above, summed over them, and
 * superadditivity for the layers after k give sum_h W(S_h) >= the bracket. So its cost is at least X(m).
 *
 * Computing it. Whether some m has X(m) <= x is decided by walking k upwards and adding a minimum at k whenever the bracket
 * exceeds x: by induction the j-th minimum so placed is at least that of any m with X(m) <= x, hence its D sum is at least as
 * large when it is needed and it never needs more minima. x is bisected; the value returned is one for which no m exists.
 */
export const lowerBoundSeconds = (problem: SyncProblem): number => {
  const sums = prefixSums(problem)
  const { count, c, r, d } = sums
  const suffix = intervalBounds(problem.period, sums)
  const simple = suffix[0]!
  // Without a forward phase to hide in, every minimum may as well be the first layer, and the interval bound says it all.
  if (count === 0 || d[count] === 0) return simple
  const rounding = 1e-12 * c[count]!
  const attainable = (x: number): boolean => {
    let minima = 0
    let dues = 0
    for (let k = 0; k < count; k++) {
      const need = c[k + 1]! + suffix[k + 1]! - x - rounding
      for (;;) {
        const hidden = r[k + 1]! - r[k + 1 - Math.min(minima, k + 1)]! + dues
        if (hidden >= need) break
        if (minima === problem.period) return false
        minima++
        dues += d[k + 1]! - d[k]!
      }
    }
    return true
  }
  let below = simple
  if (attainable(below)) return below
  let above = c[count]!
  for (let round = 0; round < 50; round++) {
    const middle = (below + above) / 2
    if (attainable(middle)) above = middle
    else below = middle
  }
  return below
}
