// The best schedule whose sets are consecutive layers, exactly, in polynomial time. The published search finds
// one of equal cost; this one proves it, and breaks ties in favour of time to spare.

import { latenessSeconds, type SyncProblem } from "./cost.ts"
import { equalNumberSets } from "./partition.ts"
import { makeSyncPlan, type SyncPlan } from "./sync-plan.ts"

/**
 * Exact optimum over all cuts of the layers into at most H consecutive blocks, one per iteration.
 * O(L^2 H) time in the worst case, O(L H) memory.
 *
 * Proof. Iterations do not interact (cost.ts), so a cut costs the sum of its blocks' W, and it does not matter which
 * iteration gets which block. Let V(h, j) be the least cost of cutting layers 0..j-1 into at most h blocks. The last
 * block of a best cut is some i..j-1, the rest is a cut of 0..i-1 into at most h-1 blocks and is itself best, or it
 * could be exchanged for a better one: V(h, j) = min(V(h-1, j), min_{i<j} V(h-1, i) + W({i..j-1})). The recurrence is
 * evaluated with i ascending, so that V(., i) is final when it is read, and W grows with j by one layer at a time.
 * A block whose W alone exceeds a known cut (the equal-number partition's) cannot be in a best cut, nor can any longer
 * one, as W is monotone: the inner loop stops there.
 *
 * Of all best cuts it takes one whose tightest iteration has the most seconds to spare, as that is the one to survive
 * a slower link: the second key, the largest lateness of a block, obeys the same recurrence with max in place of sum.
 */
export const contiguousSets = (problem: SyncProblem): ReadonlyArray<ReadonlyArray<number>> => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const layers = communicationSeconds.length
  // More blocks than layers would be empty ones.
  const blocks = Math.min(problem.period, layers)
  const width = blocks + 1
  // Index j * width + h. The inner loop runs over h, so that is what lies together.
  const cost = new Float64Array((layers + 1) * width).fill(Number.POSITIVE_INFINITY)
  const lateness = new Float64Array((layers + 1) * width).fill(Number.POSITIVE_INFINITY)
  const from = new Int32Array((layers + 1) * width).fill(-1)
  for (let h = 0; h < width; h++) {
    cost[h] = 0
    lateness[h] = Number.NEGATIVE_INFINITY
  }
  const known = equalNumberSets(problem).reduce(
    (sum, set) => sum + Math.max(0, latenessSeconds(problem, set.toReversed())),
    0
  )
  // Sums of the same blocks in another order may differ in the last digits.
  const limit = known * (1 + 1e-9)

  for (let i = 0; i < layers; i++) {
    let channel = 0
    let worst = Number.NEGATIVE_INFINITY
    let due = 0
    for (let j = i + 1; j <= layers; j++) {
      const seconds = communicationSeconds[j - 1]!
      if (seconds > 0) {
        if (channel === 0) due = forwardLeftSeconds[j - 1]!
        channel += seconds
        const late = channel - backwardLeftSeconds[j - 1]!
        if (late > worst) worst = late
      }
      const blockLateness = worst - due
      const blockCost = blockLateness > 0 ? blockLateness : 0
      if (blockCost > limit) break
      for (let h = 1; h < width; h++) {
        const before = i * width + h - 1
        const after = j * width + h
        const total = cost[before]! + blockCost
        if (total > cost[after]!) continue
        const tightest = lateness[before]! > blockLateness ? lateness[before]! : blockLateness
        if (total < cost[after]! || tightest < lateness[after]!) {
          cost[after] = total
          lateness[after] = tightest
          from[after] = i
        }
      }
    }
  }

  let h = blocks
  const sets: Array<Array<number>> = []
  for (let end = layers; end > 0; h--) {
    const start = from[end * width + h]!
    sets.push(Array.from({ length: end - start }, (_, k) => end - 1 - k))
    end = start
  }
  return sets
}

/** The exact contiguous optimum as a plan. `exact` says whether it is also proven optimal over all assignments. */
export const planContiguous = (problem: SyncProblem): SyncPlan =>
  makeSyncPlan(problem, contiguousSets(problem), "contiguous")
