// Fits the trained predictor's weights to demands, and measures any predictor on one. Deterministic: no chance is involved.
import type { Demand } from "../demand.ts"
import type { Accuracy, Predictor } from "./predictor.ts"
import { featureCount, featureNames, Features, logit, type PredictorWeights } from "./trained.ts"

interface TrainingOptions {
  /** Passes over all demands. */
  readonly epochs?: number
  readonly learningRate?: number
  /** Steps at the beginning of each demand that only fill the counts. */
  readonly warmupSteps?: number
}

/**
 * Logistic regression by stochastic gradient descent, one expert of one call at a time, in order; the step size falls as
 * 1 / sqrt(pass).
 */
export const trainPredictor = (
  demands: ReadonlyArray<Demand>,
  source: string,
  { epochs = 4, learningRate = 0.05, warmupSteps = 4 }: TrainingOptions = {}
): PredictorWeights => {
  const weights = new Float64Array(featureCount)
  const row = new Float64Array(featureCount)
  for (let epoch = 1; epoch <= epochs; epoch++) {
    const rate = learningRate / Math.sqrt(epoch)
    for (const { shape, calls } of demands) {
      const features = new Features(shape)
      const firstStep = (calls[0]?.step ?? 0) + warmupSteps
      for (const call of calls) {
        if (call.step >= firstStep) {
          const needed = new Set(call.needed)
          for (let expert = 0; expert < shape.experts; expert++) {
            features.of(call.step, call.layer, expert, row)
            const label = needed.has(call.layer * shape.experts + expert) ? 1 : 0
            const error = label - 1 / (1 + Math.exp(-logit(weights, row)))
            for (let i = 0; i < featureCount; i++) weights[i]! += rate * error * row[i]!
          }
        }
        features.observe(call)
      }
    }
  }
  return { source, features: featureNames, weights: Array.from(weights, (weight) => Math.fround(weight)) }
}

/** Asks for every call just before it happens, from `warmupSteps` on. */
export const measureAccuracy = (
  { shape, calls }: Demand,
  predictor: Predictor,
  warmupSteps = 4
): Accuracy => {
  const firstStep = (calls[0]?.step ?? 0) + warmupSteps
  let [measured, recall, right, predicted, needs, experts] = [0, 0, 0, 0, 0, 0]
  for (const call of calls) {
    if (call.step >= firstStep && call.needed.length > 0) {
      const prediction = new Set(predictor.predict(call.step, call.layer))
      const found = call.needed.filter((id) => prediction.has(id)).length
      measured++
      recall += found / call.needed.length
      right += found
      predicted += prediction.size
      needs += call.needed.length
      experts += shape.experts
    }
    predictor.observe(call)
  }
  return {
    recall: measured === 0 ? 0 : recall / measured,
    precision: predicted === 0 ? 0 : right / predicted,
    falsePositiveRate: experts === needs ? 0 : (predicted - right) / (experts - needs)
  }
}
