// Equal-number partition: the baseline partial local SGD of the DreamDDP artefact, blind to every cost.

import type { SyncProblem } from "./cost.ts"
import { makeSyncPlan, type SyncPlan } from "./sync-plan.ts"

/**
 * Sets of ceil(L/H) layers per iteration in backward order: iteration 0 takes the last layers. As in the artefact every
 * layer counts, whether it has parameters or not, and the last iterations may stay short or empty.
 */
export const equalNumberSets = (layers: number, period: number): ReadonlyArray<ReadonlyArray<number>> => {
  const perIteration = Math.ceil(layers / period)
  return Array.from({ length: period }, (_, iteration) => {
    const first = layers - 1 - iteration * perIteration
    const count = Math.max(0, Math.min(perIteration, first + 1))
    return Array.from({ length: count }, (_, k) => first - k)
  })
}

/** The equal-number partition as a plan, with its cost. */
export const planEqualNumber = (problem: SyncProblem): SyncPlan =>
  makeSyncPlan(problem, equalNumberSets(problem.communicationSeconds.length, problem.period), "equal-number")
