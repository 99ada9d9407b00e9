// Fields of a data-parallel scenario that change nothing for the algorithm it chooses.
import type { DataParallelScenario } from "./scenario.ts"
import type { RunFacts } from "../../family.ts"
import { deviceWarnings, faultWarnings, seedWarnings, worldWarnings } from "../../ignored.ts"

export const ignored = (scenario: DataParallelScenario, facts?: RunFacts): ReadonlyArray<string> => [
  ...deviceWarnings(scenario.device, "profile" in scenario.model ? "measured" : "stated", facts),
  ...worldWarnings(scenario.world, scenario.collectives),
  ...algorithmWarnings(scenario),
  ...faultWarnings(scenario.faults, scenario.world, facts),
  ...(scenario.training === undefined
    ? []
    : ["training says what is learnt, not how long it takes: `exec train` and `exec agree` go by it"]),
  ...seedWarnings(scenario.seed, scenario.jitter > 0, "nothing is random while jitter is 0")
]

const algorithmWarnings = ({ algorithm }: DataParallelScenario): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  const noTime = (field: string): void => {
    warnings.push(`algorithm.${field} changes what is learnt, not how long it takes`)
  }
  switch (algorithm.name) {
    case "ddp":
      if (algorithm.buckets !== "sized") {
        for (const field of ["bucketBytes", "firstBucketBytes"] as const) {
          const usual = field === "bucketBytes" ? 25 * 2 ** 20 : 2 ** 20
          if (algorithm[field] !== usual)
            warnings.push(`algorithm.${field} has no effect: buckets is ${algorithm.buckets}`)
        }
      }
      break
    case "diloco":
      if (algorithm.outerLearningRate !== 0.7) noTime("outerLearningRate")
      if (algorithm.outerMomentum !== 0.9) noTime("outerMomentum")
      break
    case "streaming-diloco":
      if (algorithm.outerLearningRate !== 0.4) noTime("outerLearningRate")
      if (algorithm.outerMomentum !== 0.9) noTime("outerMomentum")
      if (algorithm.localShare !== 0.5) noTime("localShare")
      break
    default:
  }
  return warnings
}
