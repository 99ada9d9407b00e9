// Strategies for tests, with everything that does not matter to them left at a default.
import * as Schema from "effect/Schema"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { ExpertOffloadSettings } from "../../core/algorithms/expert-offload/algorithms.ts"
import type { StrategyFacts } from "../../core/algorithms/expert-offload/algorithm.ts"
import { makeStrategy, type Strategy } from "../../core/algorithms/expert-offload/strategy.ts"
import { featureNames } from "../../core/algorithms/expert-offload/predictor/trained.ts"
import { Random } from "../../core/random.ts"

export const factsOf = (demand: Demand, facts: Partial<StrategyFacts> = {}): StrategyFacts => ({
  demand,
  slots: 2,
  scope: "per-layer",
  stagingSlots: 1,
  window: 2,
  weights: { source: "test", features: featureNames, weights: [-3, 2, 2, 2, 1] },
  random: new Random(1),
  ...facts
})

export const strategyOf = (settings: unknown, demand: Demand, facts: Partial<StrategyFacts> = {}): Strategy =>
  makeStrategy(Schema.decodeUnknownSync(ExpertOffloadSettings)(settings), factsOf(demand, facts))

/** One expert a call, one layer: the classical stream of references. */
export const streamOf = (references: ReadonlyArray<number>, experts: number): Demand => ({
  shape: { layers: 1, experts },
  calls: references.map((id, step) => ({ step, layer: 0, needed: [id] }))
})
