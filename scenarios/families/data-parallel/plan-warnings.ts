// What a plan or a run has shown to change nothing of it: settings of a data-parallel algorithm with which it plans as without
// them, or that one rank alone has no use for; options of collectives; the host's mode.
import * as Result from "effect/Result"
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { dataParallelNamed, planDataParallel } from "../../../core/algorithms/data-parallel/algorithms.ts"
import type { CostModel } from "../../../core/cost/cost-model.ts"
import type { Profile } from "../../../core/profile.ts"
import { asPlannedWarnings } from "../../as-planned.ts"
import { modeWarnings } from "../../host.ts"
import { idleWarnings, pairWindowWarnings, windowFields } from "../../ignored.ts"
import type { SimulatedEnd } from "../../runnable.ts"
import { ignored, normWanted } from "./ignored.ts"
import type { ScenarioPlan } from "./prepare.ts"
import type { DataParallelScenario } from "./scenario.ts"

type Settings = Readonly<Record<string, unknown>>

/** What travels when: of two plans that have this alike every run is. */
const sentBy = (plan: PlannedAlgorithm): string => {
  const { buckets, steps, fragments, delaySteps } = plan.describe()
  return JSON.stringify({ buckets, steps: steps?.map(({ layers }) => layers), fragments, delaySteps })
}

/** `told`: what is warned of already. */
const planWarnings = (
  scenario: DataParallelScenario,
  { planned, facts }: Pick<ScenarioPlan, "planned" | "facts">,
  told: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const { algorithm, shard } = scenario
  const alone = shard === undefined ? "there is one rank" : "all ranks hold one model together (shard.within)"
  const usual = defaultsOf(dataParallelNamed(algorithm.name).settings)
  const isAlike = (settings: Settings) => {
    const other = planDataParallel(settings as typeof algorithm, facts)
    return Result.isSuccess(other) && sentBy(other.success) === sentBy(planned)
  }
  return [
    ...inTurnWarnings(scenario, facts, alone, isAlike),
    ...asPlannedWarnings({
      own: algorithm,
      usual,
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
      isAlike,
      // What would be sent is still called for, and may cost a host time.
      otherwise: (field) => (facts.ranks > 1 ? [] : [`algorithm.${field} changes no message: ${alone}`])
    })
  ]
}

/** Settings of what comes first, where as much is to be done whichever does. */
const inTurnWarnings = (
  scenario: DataParallelScenario,
  { profile: { layers }, ranks }: ScenarioPlan["facts"],
  alone: string,
  isAlike: (settings: Settings) => boolean
): ReadonlyArray<string> => {
  const { algorithm } = scenario
  const usual: Settings = defaultsOf(dataParallelNamed(algorithm.name).settings)
  const own: Settings = algorithm
  const isSaid = (field: string) => own[field] !== undefined && own[field] !== usual[field]
  const first = usual["order"]
  return [
    ...(isSaid("order") && stepsAreFree(scenario, layers) && isAlike({ ...own, order: first })
      ? [`algorithm.order has no effect: local steps take no time, and the plan is as with ${first}, here`]
      : []),
    ...["overlap", "message"]
      .filter(isSaid)
      .flatMap((field) =>
        layers.length === 1
          ? [`algorithm.${field} has no effect: the model has one layer`]
          : ranks === 1
            ? [`algorithm.${field} changes no message: ${alone}`]
            : []
      )
  ]
}

/** Whether a layer's local step takes no time, nor waits for anything, and nothing else goes by when it is taken. */
const stepsAreFree = (
  { algorithm, costs, device, shard, training }: DataParallelScenario,
  layers: Profile["layers"]
): boolean => {
  const gathersLater = shard !== undefined && "deadline" in algorithm && algorithm.deadline === "next-use"
  const sumsTakeTime = (training?.accumulate ?? 1) > 1 && (costs ?? device) !== undefined
  return (
    layers.every(({ optimizer }) => optimizer.busySeconds === 0 && optimizer.spanSeconds === 0) &&
    normWanted(training) === undefined &&
    !gathersLater &&
    !sumsTakeTime
  )
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
