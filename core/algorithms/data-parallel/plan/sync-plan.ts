// What a scheduler of layer-wise synchronisations decides, and how it is put together from sets. Knows no search.

import { evaluateSets, roundingSeconds, type SyncProblem } from "./cost.ts"
import { lowerBoundSeconds } from "./lower-bound.ts"

/**
 * Planners of sync sets: equal numbers of layers, the paper's depth-first search, the best consecutive
 * blocks, any assignment.
 */
export type SyncMethod = "equal-number" | "published" | "contiguous" | "assignment"

/** Which layers are synchronised in which iteration of a period. */
export interface SyncPlan {
  /** H. */
  readonly period: number
  /**
   * `sets[h]`: layers synchronised in iteration h, as indices in forward order, listed in the order they are issued
   * (backward order: descending). Always `period` sets, some may be empty; every layer is in exactly one set, unless
   * bubbles have been filled.
   */
  readonly sets: ReadonlyArray<ReadonlyArray<number>>
  /** Stall per iteration, seconds; see cost.ts. */
  readonly perIterationSeconds: ReadonlyArray<number>
  /** Their sum over the period. */
  readonly exposedSeconds: number
  /** No assignment of layers to iterations, contiguous or not, exposes less than this per period. */
  readonly lowerBoundSeconds: number
  readonly method: SyncMethod
  /** `exposedSeconds` is proven to be the least over all assignments. */
  readonly exact: boolean
}

/**
 * A plan from its sets (any order inside a set). `optimal` states that a search has proven them optimal; a plan that
 * meets its lower bound is exact anyway. Throws RangeError unless every layer is in exactly one set.
 */
export const makeSyncPlan = (
  problem: SyncProblem,
  sets: ReadonlyArray<ReadonlyArray<number>>,
  method: SyncMethod,
  optimal = false
): SyncPlan => {
  const layers = problem.communicationSeconds.length
  const full = Array.from({ length: problem.period }, (_, iteration) =>
    (sets[iteration] ?? []).toSorted((a, b) => b - a)
  )
  const cost = evaluateSets(problem, sets.length > problem.period ? sets : full)
  const seen = new Set(full.flat())
  if (seen.size !== layers || full.reduce((count, set) => count + set.length, 0) !== layers)
    throw new RangeError("the sets of a plan must name every layer exactly once")
  const bound = lowerBoundSeconds({ ...problem, ...problem.atBest })
  const exposed = cost.totalSeconds
  const met = exposed - bound <= roundingSeconds(problem)
  // A search proves what it knows, which is less where layers may be better off than they are reckoned.
  const proven = optimal && problem.atBest === undefined
  return {
    period: problem.period,
    sets: full,
    perIterationSeconds: cost.perIterationSeconds,
    exposedSeconds: exposed,
    // A bound met up to rounding, or an optimum proven by search, is the exposed time itself.
    lowerBoundSeconds: met || proven ? exposed : bound,
    method,
    exact: met || proven
  }
}
