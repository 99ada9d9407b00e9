// Equal-number partition: the baseline partial local SGD of the DreamDDP artefact, blind to every cost.

import type { SyncProblem } from "./cost.ts"
import { makeSyncPlan, type SyncPlan } from "./sync-plan.ts"

/**
 * Sets of ceil(L/H) layers per iteration in backward order: iteration 0 takes the last layers, and the last iterations may
 * stay short or empty. L counts layers that have parameters, as every layer of the published profiles does; one that has
 * none goes with the layer behind it.
 */
export const equalNumberSets = ({
  period,
  hasParameters
}: Pick<SyncProblem, "period" | "hasParameters">): ReadonlyArray<ReadonlyArray<number>> => {
  const sets = Array.from({ length: period }, (): Array<number> => [])
  const perIteration = Math.ceil(hasParameters.filter(Boolean).length / period)
  let iteration = 0
  let taken = 0
  for (let layer = hasParameters.length - 1; layer >= 0; layer--) {
    if (hasParameters[layer]!) {
      if (taken === perIteration) {
        iteration++
        taken = 0
      }
      taken++
    }
    sets[iteration]!.push(layer)
  }
  return sets
}

/** The equal-number partition as a plan, with its cost. */
export const planEqualNumber = (problem: SyncProblem): SyncPlan =>
  makeSyncPlan(problem, equalNumberSets(problem), "equal-number")
