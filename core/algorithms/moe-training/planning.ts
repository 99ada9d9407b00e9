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
import { partitionBoundSeconds, type GradientPlan, type GradientProblem } from "./plan/gradients.ts"
import type { LaneUse } from "./plan/pipeline.ts"
import type { MoePlan } from "./program.ts"
import type { LayerCosts } from "./rehearsal.ts"
import { moeAlgorithmNamed, type MoeTrainingSettings } from "./algorithms.ts"

/** A simulation (or a run) of one layer's pipelined part, for `planner: simulation`. */
export type PipelineOracle = (pass: "forward" | "backward", lanes: LaneUse) => PipelineSeconds

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
  const by = (pass: "forward" | "backward"): DegreeModel => {
    if (planner === "simulation") {
      if (oracle === undefined) throw new RangeError("planner: simulation without anything to simulate with")
      return oracle(pass, lanes)
    }
    return planner === "cases" ? "model" : "lanes"
  }
  const forwardProblem: DegreeProblem = {
    costs: costs.forward,
    lanes,
    degrees: degreesOf(settings, "forward"),
    by: by("forward")
  }
  const free = chooseDegree(forwardProblem)
  const layers = Array.from({ length: model.layers }, () => ({
    elements: costs.gradientElements,
    denseSeconds: costs.denseBackwardSeconds,
    costs: costs.backward
  }))
  const backwardProblem: DegreeProblem = {
    costs: costs.backward,
    lanes,
    degrees: degreesOf(settings, "backward"),
    by: by("backward")
  }
  const both = oneDegree(settings, forwardProblem, backwardProblem)
  const forward =
    both === undefined ? free : { degree: both, seconds: pipelineSeconds(forwardProblem)(both, 0) }
  const problem: GradientProblem = {
    layers,
    allReduceSeconds: costs.allReduceSeconds,
    lanes,
    degrees: both === undefined ? backwardProblem.degrees : [both],
    by: backwardProblem.by
  }
  const gradients = algorithm.gradients(settings, model, problem)
  const { gradientElements: each, allReduceSeconds } = costs
  const bytes = dtypeBits[model.dtype] / 8
  const messageBytes = algorithm.messageBytes?.(settings)
  return {
    settings,
    costs,
    gradients,
    plan: {
      lanes,
      forwardDegrees: layers.map(() => forward.degree),
      // Plans are in the order of the backward pass.
      backwardDegrees: gradients.degrees.toReversed(),
      gradients: {
        moe: gradients.moe,
        dense: gradients.dense,
        rest: gradients.rest,
        messageElements: messageBytes === undefined ? undefined : messageBytes / bytes
      }
    },
    predicted: {
      forwardSeconds: model.layers * (forward.seconds + costs.denseForwardSeconds),
      backwardSeconds: gradients.seconds,
      alikeSeconds: costs.alikeSeconds(model.layers),
      backwardBoundSeconds: partitionBoundSeconds(
        problem,
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
