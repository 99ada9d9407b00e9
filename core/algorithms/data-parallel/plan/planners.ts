// The planners of layer-wise synchronisation by the names users choose them by.

import { planAssignment } from "./assignment.ts"
import { planContiguous } from "./contiguous.ts"
import type { SyncProblem } from "./cost.ts"
import { planPublished } from "./dreamddp.ts"
import { planEqualNumber } from "./partition.ts"
import type { SyncMethod, SyncPlan } from "./sync-plan.ts"

/**
 * - `equal-number`: ceil(L/H) layers that have parameters per iteration, blind to cost (partial local SGD's baseline).
 * - `published`: DreamDDP's depth-first search over consecutive layers.
 * - `contiguous`: the exact optimum over consecutive layers by dynamic programme; the same cost as `published`, and among
 *   schedules of that cost the one with most time to spare.
 * - `assignment`: any layer in any iteration; never worse than the others. The default.
 */
export const syncPlanners: Readonly<Record<SyncMethod, (problem: SyncProblem) => SyncPlan>> = {
  "equal-number": planEqualNumber,
  published: planPublished,
  contiguous: planContiguous,
  assignment: (problem) => planAssignment(problem)
}

export const defaultSyncMethod: SyncMethod = "assignment"

/** The plan of one method, by default the one that is never worse than any other. */
export const planSync = (problem: SyncProblem, method: SyncMethod = defaultSyncMethod): SyncPlan =>
  syncPlanners[method](problem)
