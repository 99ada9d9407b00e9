// Which experts a layer is going to need, guessed before its router has run. A predictor sees the calls as they happen and
// answers for calls to come. Knows nothing of slots, loads or time.
import type { ExpertId, LayerCall } from "../demand.ts"

/** Says before a layer runs which experts it will need. */
export interface Predictor {
  /** What a layer really needed, in the order of calls. */
  observe(call: LayerCall): void
  /** Experts that layer `layer` of step `step` is expected to need, most probable first. */
  predict(step: number, layer: number): ReadonlyArray<ExpertId>
}

/** How good predictions were: over experts needed, and over experts there are. */
export interface Accuracy {
  /** Share of the needed experts that were predicted: mean over calls of |predicted and needed| / |needed|. */
  readonly recall: number
  /** Share of predicted experts that were needed, over all calls. */
  readonly precision: number
  /** Share of the experts not needed that were predicted all the same, over all calls. */
  readonly falsePositiveRate: number
}
