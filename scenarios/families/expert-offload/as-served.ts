// What a scenario of offloaded experts says in vain, as serving its routing shows: settings with which experts are loaded, kept and
// used as without them. What is loaded when is the strategy's alone, and never depends on time.
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import {
  offloadAlgorithmNamed,
  type ExpertOffloadSettings
} from "../../../core/algorithms/expert-offload/algorithms.ts"
import { servedBy } from "../../../core/algorithms/expert-offload/count-loads.ts"
import {
  predictorDefaults,
  type PredictorSettings
} from "../../../core/algorithms/expert-offload/predictor/predictors.ts"
import type { SlotScope } from "../../../core/algorithms/expert-offload/optimum.ts"
import type { Strategy } from "../../../core/algorithms/expert-offload/strategy.ts"
import { asPlannedWarnings } from "../../as-planned.ts"
import { usualScope, type PlannedScenario } from "./prepare.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"

const what = "experts are loaded"

/** `told`: what is warned of already. */
export const asServedWarnings = (
  { algorithm, cache, workload }: ExpertOffloadScenario,
  { demand, strategy, slotsOf, tokensStayed, window }: PlannedScenario,
  told: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const served = (by: Strategy) => servedBy(demand, by)
  let known: ReturnType<typeof served> | undefined
  const own = () => (known ??= served(strategy()))
  const isAlike = (other: Strategy) => served(other).digest === own().digest
  const named = offloadAlgorithmNamed(algorithm.name)
  const usual = { window: named.usualWindow?.(demand.shape) ?? window, ...defaultsOf(named.settings) }
  const warnings = [
    ...asPlannedWarnings({
      own: algorithm,
      usual,
      fields: ["reach", "window", "slots", "admission"],
      what,
      told,
      isAlike: (settings) => isAlike(strategy(settings as ExpertOffloadSettings))
    }),
    ...asPlannedWarnings({
      section: "cache",
      own: cache,
      usual: { scope: usualScope },
      fields: ["scope"],
      what,
      told,
      isAlike: (asked) => {
        const scope = asked["scope"] as SlotScope
        return slotsOf(algorithm, scope).slots > 0 && isAlike(strategy(undefined, undefined, scope))
      }
    })
  ]
  if ("predictor" in algorithm) {
    const { predictor } = usual as typeof algorithm
    warnings.push(
      ...predictorWarnings(algorithm.predictor, predictor, told, (other) =>
        isAlike(strategy({ ...algorithm, predictor: other }))
      )
    )
  }
  const none = "workload.tokenScheduler has no effect:"
  if (tokensStayed && workload.batch === 1)
    warnings.push(`${none} two tokens are one for each batch, however divided`)
  else if (tokensStayed) warnings.push(`${none} every token stays in its batch`)
  const leave = "cache.writeBack has no effect:"
  if (
    cache.writeBack !== "none" &&
    !told.some((warning) => warning.startsWith(leave)) &&
    own().evictions === 0
  )
    warnings.push(`${leave} no expert of this run leaves its slot`)
  return warnings
}

/** Of another predictor than the usual one its name, of each what it is told. */
const predictorWarnings = (
  own: PredictorSettings,
  usual: PredictorSettings,
  told: ReadonlyArray<string>,
  isAlike: (predictor: PredictorSettings) => boolean
): ReadonlyArray<string> => {
  if (JSON.stringify(own) === JSON.stringify(usual)) return []
  if (own.name !== usual.name && isAlike(usual))
    return [`algorithm.predictor has no effect: ${what} as with ${usual.name}, here`]
  return asPlannedWarnings({
    section: "algorithm.predictor",
    own,
    usual: predictorDefaults(own),
    fields: ["recall", "falsePositiveRate", "breadth"],
    what,
    told,
    isAlike: (settings) => isAlike(settings as PredictorSettings)
  })
}
