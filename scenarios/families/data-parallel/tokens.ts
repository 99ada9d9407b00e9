// How much a rank trains on in a step, as far as the scenario says: what step times of unlike batches are compared by.
import { isArchitecture } from "../../model-graph.ts"
import type { ArchitectureSettings } from "../../sections.ts"
import type { DataParallelScenario } from "./scenario.ts"

/** Of one rank: sequences x tokens of each x passes of a step. A profiled model's are those of `activations.of`. */
export const tokensPerStep = ({ model, activations, training }: DataParallelScenario): number | undefined => {
  const described = isArchitecture(model) ? model : activations?.of
  if (described === undefined) return undefined
  const { batch, context } = sizesOf(described)
  return batch * context * (training?.accumulate ?? 1)
}

/** Its batch and context are of these. */
export const sizesOf = (described: typeof ArchitectureSettings.Type) => {
  if ("gpt2" in described) return described.gpt2
  return "llama" in described ? described.llama : described.mixtral
}
