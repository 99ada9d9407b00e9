// A small predictor that learns two ways: popularity, recency and which experts go together it counts while it runs; how
// much each of these says was trained beforehand, by logistic regression over routing traces (train.ts). Its weights fit
// any model, for they are about the features and not about particular experts.
import * as Schema from "effect/Schema"
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import type { Predictor } from "./predictor.ts"

/** In the order of the weights. */
export const featureNames = ["bias", "last step", "recent", "overall", "company"] as const
export const featureCount = featureNames.length

/** A file of a trained predictor: a weight for each of its features, among them the bias. */
export const PredictorWeights = Schema.Struct({
  /** Which traces they come from, for people. */
  source: Schema.String,
  features: Schema.Array(Schema.Literals(featureNames)),
  weights: Schema.Array(Schema.Finite)
})
export type PredictorWeights = typeof PredictorWeights.Type

/** Share of an old value that a step leaves in `recent`. */
const memory = 0.75

/**
 * What is known of every expert before its layer runs: whether the last step used it; how often recent steps did (an
 * exponential mean); how often all did; and `company`, how much oftener than usual it was used with the experts that the
 * layer before needs in this step.
 */
export class Features {
  readonly shape: ExpertShape
  readonly #last: Uint8Array
  readonly #recent: Float64Array
  readonly #uses: Float64Array
  readonly #steps: Float64Array
  // together[(layer * experts + before) * experts + expert]: uses of `expert` of `layer` in steps where `before` of the
  // layer before was used.
  readonly #together: Float32Array
  #before: LayerCall | undefined

  constructor(shape: ExpertShape) {
    const { layers, experts } = shape
    this.shape = shape
    this.#last = new Uint8Array(layers * experts)
    this.#recent = new Float64Array(layers * experts)
    this.#uses = new Float64Array(layers * experts)
    this.#steps = new Float64Array(layers)
    this.#together = new Float32Array(layers * experts * experts)
  }

  observe(call: LayerCall): void {
    const { experts } = this.shape
    const { layer, needed } = call
    const first = layer * experts
    this.#last.fill(0, first, first + experts)
    for (let id = first; id < first + experts; id++) this.#recent[id]! *= memory
    for (const id of needed) {
      this.#last[id] = 1
      this.#recent[id]! += 1 - memory
      this.#uses[id]!++
    }
    this.#steps[layer]!++
    const before = this.#companions(call.step, layer)
    for (const companion of before) {
      const at = (first + (companion % experts)) * experts
      for (const id of needed) this.#together[at + id - first]!++
    }
    this.#before = call
  }

  /** Experts that a call of the layer needed, mean of those seen; 0 before the first. */
  usualNeed(layer: number): number {
    const { experts } = this.shape
    let uses = 0
    for (let id = layer * experts; id < (layer + 1) * experts; id++) uses += this.#uses[id]!
    return uses / Math.max(1, this.#steps[layer]!)
  }

  /** Writes the features of one expert to `into`. */
  of(step: number, layer: number, expert: number, into: Float64Array): void {
    const { experts } = this.shape
    const id = layer * experts + expert
    const overall = this.#uses[id]! / Math.max(1, this.#steps[layer]!)
    let company = 0
    const before = this.#companions(step, layer)
    for (const companion of before) {
      const uses = this.#uses[companion]!
      if (uses === 0) continue
      const together = this.#together[(layer * experts + (companion % experts)) * experts + expert]!
      // Few observations say little: half a pseudo-step of the usual rate on either side.
      company += (together + overall) / (uses + 1) - overall
    }
    into[0] = 1
    into[1] = this.#last[id]!
    into[2] = this.#recent[id]!
    into[3] = overall
    into[4] = before.length === 0 ? 0 : company / before.length
  }

  #companions(step: number, layer: number): ReadonlyArray<ExpertId> {
    const before = this.#before
    return before !== undefined && before.step === step && before.layer === layer - 1 ? before.needed : []
  }
}

/** Predicts the likeliest experts: as many as the layer needed on average so far, times `breadth`, and at least one. */
export class Trained implements Predictor {
  readonly #features: Features
  readonly #weights: ReadonlyArray<number>
  readonly #breadth: number
  readonly #row = new Float64Array(featureCount)

  constructor(shape: ExpertShape, { weights }: PredictorWeights, breadth: number) {
    if (weights.length !== featureCount)
      throw new RangeError(`${weights.length} weights for ${featureCount} features`)
    this.#features = new Features(shape)
    this.#weights = weights
    this.#breadth = breadth
  }

  observe(call: LayerCall): void {
    this.#features.observe(call)
  }

  predict(step: number, layer: number): ReadonlyArray<ExpertId> {
    const { experts } = this.#features.shape
    const usual = this.#features.usualNeed(layer)
    if (usual === 0) return []
    const scores = Float64Array.from({ length: experts }, (_, expert) => {
      this.#features.of(step, layer, expert, this.#row)
      return logit(this.#weights, this.#row)
    })
    return Array.from(scores.keys())
      .toSorted((a, b) => scores[b]! - scores[a]! || a - b)
      .slice(0, Math.max(1, Math.round(this.#breadth * usual)))
      .map((expert) => layer * experts + expert)
  }
}

export const logit = (weights: ArrayLike<number>, row: ArrayLike<number>): number => {
  let sum = 0
  for (let i = 0; i < featureCount; i++) sum += weights[i]! * row[i]!
  return sum
}
