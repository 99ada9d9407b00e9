// From settings to a plan: degrees and gradient cuts by the pure planners, from what a layer's ops cost. The same for both
// machines; what an op costs is asked of whoever knows.
import { dtypeBits } from "../../machine/tensor.ts"
import type { MoeModel } from "./model.ts"
import {
  chooseDegree,
  pipelineSeconds,
  type DegreeModel,
  type DegreeProblem,
  type PipelineSeconds
} from "./plan/degree.ts"
import { partitionBoundSeconds, planOf, type GradientPlan, type GradientProblem } from "./plan/gradients.ts"
import type { LaneUse } from "./plan/pipeline.ts"
import type { MoePlan } from "./program.ts"
import type { LayerCosts } from "./rehearsal.ts"
import { moeAlgorithmNamed, type MoeTrainingSettings } from "./algorithms.ts"

/** A simulation (or a run) of one layer's pipelined part, for `planner: simulation`. */
export type PipelineOracle = (
  pass: "forward" | "backward",
  lanes: LaneUse,
  /** Degree of the other pass; default: the same. */
  other?: number
) => PipelineSeconds

/** An algorithm's plan for a model, with what it reckons the passes take, seconds. */
export interface PlannedMoe {
  readonly settings: MoeTrainingSettings
  readonly plan: MoePlan
  readonly costs: LayerCosts
  /** What the model says: of all layers, what follows them, and for the backward pass at least. */
  readonly predicted: {
    readonly forwardSeconds: number
    readonly backwardSeconds: number
    /** Of the gradients of norms and gates, which travel when both have ended. */
    readonly alikeSeconds: number
    readonly backwardBoundSeconds: number
  }
  readonly gradients: GradientPlan
}

/** Degrees an algorithm may use. */
const degreesOf = (settings: MoeTrainingSettings, pass: "forward" | "backward"): ReadonlyArray<number> => {
  if (!("degrees" in settings)) return [1]
  const fixed = pass === "forward" ? settings.forwardDegree : settings.backwardDegree
  return fixed === undefined ? settings.degrees : [fixed]
}

/** Every degree that any of the algorithms may use: what costs are needed for. */
export const allDegrees = (settings: ReadonlyArray<MoeTrainingSettings>): ReadonlyArray<number> =>
  [
    ...new Set(settings.flatMap((one) => [...degreesOf(one, "forward"), ...degreesOf(one, "backward")]))
  ].toSorted((a, b) => a - b)

/** Plans an algorithm for a model from what a layer's ops cost, for several algorithms on one model. */
export const planWith = (
  settings: MoeTrainingSettings,
  model: MoeModel,
  costs: LayerCosts,
  oracle?: PipelineOracle
): PlannedMoe => {
  const algorithm = moeAlgorithmNamed(settings.name)
  const { lanes } = algorithm
  const planner = "planner" in settings ? settings.planner : "lanes"
  const by = (pass: "forward" | "backward", other: number | undefined): DegreeModel => {
    if (planner === "simulation") {
      if (oracle === undefined) throw new RangeError("planner: simulation without anything to simulate with")
      return oracle(pass, lanes, other)
    }
    return planner === "cases" ? "model" : "lanes"
  }
  /** `other`: the degree of the other pass, where it is known. */
  const problemOf = (pass: "forward" | "backward", other?: number): DegreeProblem => ({
    costs: (degree) => costs[pass](degree, other),
    lanes,
    degrees: degreesOf(settings, pass),
    by: by(pass, other)
  })
  const both = oneDegree(settings, problemOf("forward"), problemOf("backward"))
  const fixed = "degrees" in settings ? settings.backwardDegree : undefined
  const forwardDegree = both ?? chooseDegree(problemOf("forward", fixed)).degree
  const backwardProblem = problemOf("backward", forwardDegree)
  // Every layer's is the same function: what is looked up once need not be again.
  const layersOf = (denseSeconds: (layer: number) => number) =>
    Array.from({ length: model.layers }, (_, layer) => ({
      elements: costs.gradientElements,
      denseSeconds: denseSeconds(layer),
      // On one lane for all communication, what the dense part gathers and scatters inside its node stands in the way.
      heldSeconds: lanes === "two" ? costs.denseMessageSeconds(forwardDegree, forwardDegree) : 0,
      costs: backwardProblem.costs
    }))
  const problem: GradientProblem = {
    layers: layersOf(() => costs.denseBackwardSeconds(forwardDegree, forwardDegree)),
    allReduceSeconds: costs.allReduceSeconds,
    lanes,
    degrees: both === undefined ? backwardProblem.degrees : [both],
    by: backwardProblem.by
  }
  const planned = algorithm.gradients(settings, model, problem)
  // What the degrees chosen make of the rest of each layer, told and not planned with.
  const told: GradientProblem = {
    ...problem,
    layers: layersOf((layer) => costs.denseBackwardSeconds(forwardDegree, planned.degrees[layer]!))
  }
  const gradients = { ...planned, seconds: planOf(told, planned.moe, planned.dense).seconds }
  // Plans are in the order of the backward pass.
  const backwardDegrees = gradients.degrees.toReversed()
  const forwardSeconds = backwardDegrees.map(
    (backward) =>
      pipelineSeconds(problemOf("forward", backward))(forwardDegree, 0) +
      costs.denseForwardSeconds(forwardDegree, backward)
  )
  const { gradientElements: each, allReduceSeconds } = costs
  const bytes = dtypeBits[model.dtype] / 8
  const messageBytes = algorithm.messageBytes?.(settings)
  return {
    settings,
    costs,
    gradients,
    plan: {
      lanes,
      forwardDegrees: backwardDegrees.map(() => forwardDegree),
      backwardDegrees,
      gradients: {
        moe: gradients.moe,
        dense: gradients.dense,
        rest: gradients.rest,
        messageElements: messageBytes === undefined ? undefined : messageBytes / bytes
      }
    },
    predicted: {
      forwardSeconds: forwardSeconds.reduce((sum, seconds) => sum + seconds, 0),
      backwardSeconds: gradients.seconds,
      alikeSeconds: costs.alikeSeconds(backwardDegrees.map((backward) => [forwardDegree, backward])),
      backwardBoundSeconds: partitionBoundSeconds(
        told,
        each === 0 ? 0 : (allReduceSeconds(2 * each) - allReduceSeconds(each)) / each
      )
    }
  }
}

/** One degree for both passes, that with the shortest sum. Undefined where passes choose for themselves, or a scenario has said. */
const oneDegree = (
  settings: MoeTrainingSettings,
  forward: DegreeProblem,
  backward: DegreeProblem
): number | undefined => {
  if (moeAlgorithmNamed(settings.name).degreePerPass || !("degrees" in settings)) return undefined
  if (settings.forwardDegree !== undefined || settings.backwardDegree !== undefined) return undefined
  const [there, back] = [pipelineSeconds(forward), pipelineSeconds(backward)]
  return chooseDegree({
    ...forward,
    by: (degree, gradient) => there(degree, gradient) + back(degree, gradient)
  }).degree
}
