// What numbers of a scenario's model are in: parameters as layers read them, gradients, and what travels of either. Knows no times.
import { gradientWire } from "../../../core/algorithms/data-parallel/algorithm.ts"
import type { ShardPlan } from "../../../core/algorithms/data-parallel/shard/plan.ts"
import { dtypeBits, type Dtype } from "../../../core/machine/tensor.ts"
import { layerDtype, type Profile } from "../../../core/profile.ts"
import { isArchitecture } from "../../model-graph.ts"
import type { DataParallelScenario } from "./scenario.ts"
import { accumulationOf, layerDtypeOf } from "./training-settings.ts"

/**
 * The profile with the dtype that layers read parameters in and write gradients in: a measured one says it, of a described model with
 * this project's kernels `training.precision` does.
 */
export const inPrecision = (
  { model, kernels, training }: DataParallelScenario,
  profile: Profile
): Profile => {
  if (!isArchitecture(model) || kernels !== "fused" || training === undefined) return profile
  const dtype = layerDtypeOf(training)
  return { ...profile, parameters: profile.parameters.map((parameter) => ({ ...parameter, dtype })) }
}

/**
 * What those who average keep of it, and what it travels as: parameters are float32; gradients of a whole model are as its one pass
 * leaves them, float32 where they are the mean of several.
 */
export const sentDtypes = (
  { algorithm, training }: DataParallelScenario,
  { parameters }: Profile,
  shard: ShardPlan | undefined
): { readonly kept: Dtype; readonly wire: Dtype } => {
  if ("period" in algorithm) return { kept: "float32", wire: algorithm.wire }
  const [first] = parameters
  const asMade = first !== undefined && shard === undefined && accumulationOf(training) === undefined
  const kept = asMade ? layerDtype(first) : "float32"
  const wire = gradientWire("float32", algorithm.wire, shard?.reduceDtype)
  return { kept, wire: dtypeBits[kept] < dtypeBits[wire] ? kept : wire }
}
