// What a plan or a run has shown to change nothing of it: settings of a data-parallel algorithm with which it plans as without
// them, or that one rank alone has no use for; options of collectives; the host's mode.
import * as Result from "effect/Result"
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { dataParallelNamed, planDataParallel } from "../../../core/algorithms/data-parallel/algorithms.ts"
import type { CostModel } from "../../../core/cost/cost-model.ts"
import { asPlannedWarnings } from "../../as-planned.ts"
import { modeWarnings } from "../../host.ts"
import { idleWarnings, pairWindowWarnings, windowFields } from "../../ignored.ts"
import type { SimulatedEnd } from "../../runnable.ts"
import { ignored } from "./ignored.ts"
import type { ScenarioPlan } from "./prepare.ts"
import type { DataParallelScenario } from "./scenario.ts"

/** What travels when: of two plans that have this alike every run is. */
const sentBy = (plan: PlannedAlgorithm): string => {
  const { buckets, steps, fragments, delaySteps } = plan.describe()
  return JSON.stringify({ buckets, steps: steps?.map(({ layers }) => layers), fragments, delaySteps })
}

/** `told`: what is warned of already. */
const planWarnings = (
  { algorithm, shard }: DataParallelScenario,
  { planned, facts }: Pick<ScenarioPlan, "planned" | "facts">,
  told: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const alone = shard === undefined ? "there is one rank" : "all ranks hold one model together (shard.within)"
  return asPlannedWarnings({
    own: algorithm,
    usual: defaultsOf(dataParallelNamed(algorithm.name).settings),
    fields: [
      "buckets",
      "bucketBytes",
      "firstBucketBytes",
      "planner",
      "fillBubbles",
      "units",
      "pattern",
      "offsets"
    ],
    told,
    isAlike: (settings) => {
      const other = planDataParallel(settings as typeof algorithm, facts)
      return Result.isSuccess(other) && sentBy(other.success) === sentBy(planned)
    },
    // What would be sent is still called for, and may cost a host time.
    otherwise: (field) => (facts.ranks > 1 ? [] : [`algorithm.${field} changes no message: ${alone}`])
  })
}

/** All of a run that has ended. */
export const vainInRun = (
  scenario: DataParallelScenario,
  plan: Pick<ScenarioPlan, "planned" | "facts" | "world">,
  { idle }: Pick<SimulatedEnd, "idle">,
  costs: CostModel
): ReadonlyArray<string> => {
  const told = [...ignored(scenario), ...pairWindowWarnings(plan.world)]
  return [
    ...idleWarnings(
      idle,
      [
        ["chunkBytes", "collectives.chunk"],
        ["handshake", "collectives.handshake"],
        ["table", "collectives.measured"],
        ["inside", "collectives.inside"],
        ["waitSeconds", "collectives.wait"],
        ["slowdown", "collectives.slowdown"],
        ["slowdownInside", "collectives.slowdownInside"],
        ...windowFields
      ],
      told
    ),
    ...planWarnings(scenario, plan, told),
    ...modeWarnings(scenario.host, costs)
  ]
}
