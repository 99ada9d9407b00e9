// Settings of an MoE algorithm with which it plans here as without them.
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import {
  moeAlgorithmNamed,
  type MoeTrainingSettings
} from "../../../core/algorithms/moe-training/algorithms.ts"
import type { PlannedMoe } from "../../../core/algorithms/moe-training/planning.ts"
import { greatest } from "../../../core/extremes.ts"
import { asPlannedWarnings } from "../../as-planned.ts"

/** What is done and sent when: of two plans that have this alike every run is. */
const sentBy = ({ plan }: PlannedMoe): string => {
  const { moe, dense, rest, messageElements = Infinity } = plan.gradients
  const cut = greatest([...moe, ...dense, rest]) > messageElements
  return JSON.stringify({ ...plan, gradients: { moe, dense, rest, ...(cut ? { messageElements } : {}) } })
}

/** `told`: what is warned of already. */
export const planWarnings = (
  planned: PlannedMoe,
  planWith: (settings: MoeTrainingSettings) => PlannedMoe,
  told: ReadonlyArray<string>
): ReadonlyArray<string> =>
  asPlannedWarnings({
    own: planned.settings,
    usual: defaultsOf(moeAlgorithmNamed(planned.settings.name).settings),
    fields: ["planner", "partition", "chunkBytes"],
    told,
    isAlike: (settings) => sentBy(planWith(settings as MoeTrainingSettings)) === sentBy(planned)
  })
