// Fields of a scenario of offloaded experts that change nothing for the algorithm and routing it chooses.
import {
  expertBytes,
  leftOutOf,
  moeModels,
  windowOf,
  type MoeModel
} from "../../../core/algorithms/expert-offload/model.ts"
import { formatShare } from "../../../core/units.ts"
import { hostNever, type ExpertOffloadScenario } from "./scenario.ts"
import { offloadAlgorithmNamed } from "../../../core/algorithms/expert-offload/algorithms.ts"
import { fixedScope, usesStaging } from "../../../core/algorithms/expert-offload/strategy.ts"
import type { RunFacts } from "../../family.ts"
import {
  deviceWarnings,
  hostWarnings,
  longerThanLinks,
  realWarnings,
  seedWarnings,
  slipWarnings
} from "../../ignored.ts"

export const ignored = (scenario: ExpertOffloadScenario, facts?: RunFacts): ReadonlyArray<string> => {
  const { algorithm, cache, routing, workload, jitter, seed, device } = scenario
  const warnings: Array<string> = []
  const fixed = fixedScope(algorithm)
  const scope = fixed ?? cache.scope ?? "per-layer"
  if (cache.scope !== undefined && cache.scope !== scope)
    warnings.push(`cache.scope has no effect: the slots of ${algorithm.name} are ${scope}`)
  if (cache.stagingSlots !== 1 && !usesStaging(algorithm))
    warnings.push(`cache.stagingSlots has no effect: with ${algorithm.name} every loaded expert takes a slot`)
  if (cache.writeBack !== "none" && !offloadAlgorithmNamed(algorithm.name).retains)
    warnings.push(
      `cache.writeBack has no effect: with ${algorithm.name} no expert is kept, so none leaves for another`
    )
  const { like, ...own } = scenario.model
  const model: MoeModel = { ...moeModels[like], ...own }
  if (leftOutOf[like] !== undefined)
    warnings.push(
      `model ${like}: ${leftOutOf[like]}; loads are those of its routed experts, a step's time is not the model's`
    )
  const context = workload.promptTokens + Math.ceil(workload.decodeTokens / workload.batches)
  const window = windowOf[like]
  if (window !== undefined && context > window.tokens)
    warnings.push(
      `model ${like}: ${window.layers} layers attend to ${window.tokens} tokens at most, and are taken to attend to all ${context}: caches, prefill and steps are too large`
    )
  if (
    cache.slotsPerLayer === model.experts ||
    (cache.bytes !== undefined && cache.bytes >= model.layers * model.experts * expertBytes(model))
  ) {
    if (scope !== "per-layer" && fixed === undefined)
      warnings.push("cache.scope has no effect: every expert has a slot")
    if (cache.writeBack !== "none")
      warnings.push("cache.writeBack has no effect: every expert has a slot, so none leaves")
  }
  if (algorithm.name === "previous-token" && scope === "per-layer") {
    for (const [field, usual] of [
      ["reach", 1],
      ["window", undefined]
    ] as const)
      if (algorithm[field] !== usual)
        warnings.push(
          `algorithm.${field} has no effect: with slots of its own, a layer keeps what its last token used`
        )
  }
  // Popularity and topics only raise what repeats by chance.
  const chance = model.topK / model.experts
  if ("statistics" in routing && routing.statistics.repeat > 0 && routing.statistics.repeat <= chance)
    warnings.push(
      `routing.statistics.repeat has no effect: ${formatShare(chance)} of a token's experts repeat by chance, of ${model.topK} out of ${model.experts}`
    )
  const allExperts = model.topK === model.experts
  const predicts = "predictor" in algorithm && algorithm.predictor.name === "oracle"
  const random = (!("trace" in routing) && !allExperts) || jitter > 0 || predicts
  return [
    ...warnings,
    ...slipWarnings("hostLink.latency", scenario.hostLink?.latency, longerThanLinks),
    ...hostWarnings(scenario.host, hostNever),
    ...deviceWarnings(device, "measured", facts),
    ...seedWarnings(
      seed,
      random,
      `${"trace" in routing ? "the routing comes from a trace" : "every token uses all experts of a layer"}, and nothing else is random`
    )
  ]
}

export const ignoredByExec = (
  { jitter, host, routing, workload, device, algorithm }: ExpertOffloadScenario,
  alsoSimulated: boolean
): ReadonlyArray<string> => {
  const { tokenScheduler } = workload
  const warnings = [...realWarnings({ jitter, host }, alsoSimulated)]
  if ("trace" in routing)
    warnings.push("routing has no effect but for its prompts: in a real run the routers choose")
  if (tokenScheduler)
    warnings.push("workload.tokenScheduler has no effect: in a real run tokens stay in their batches")
  const { settings } = offloadAlgorithmNamed(algorithm.name)
  if (device !== undefined && !("window" in settings.fields && !("window" in algorithm)))
    warnings.push("device has no effect: nothing that this algorithm does follows from its speed")
  return warnings
}
