// Gradients in buckets, planned: what S-SGD and DDP share.
import { elementsOf, sizeBytesOf, type Dtype } from "../../../machine/tensor.ts"
import { layerDtype, type Profile } from "../../../profile.ts"
import { wireOf, type PlannedAlgorithm } from "../algorithm.ts"
import type { Bucket, GradientSize } from "../plan/buckets.ts"
import { distributedDataParallel, type DdpPlan, type GradientRef } from "./program.ts"

/** Limits count the gradients' own bytes, as PyTorch's do, whatever they are rounded to on the wire. */
export const gradientSizes = (profile: Profile): ReadonlyArray<GradientSize> =>
  profile.parameters.map((parameter) => ({
    layer: parameter.layer,
    sizeBytes: sizeBytesOf(elementsOf(parameter.shape), layerDtype(parameter)),
    dtype: parameter.dtype
  }))

const gradientRefs = ({ parameters }: Profile): ReadonlyArray<GradientRef> =>
  parameters.map(({ layer, shape }) => ({ layer, elements: elementsOf(shape) }))

export const planBuckets = (
  profile: Profile,
  buckets: ReadonlyArray<Bucket>,
  { wire, ...how }: Pick<DdpPlan, "overlap" | "deadline"> & { readonly wire: Dtype }
): PlannedAlgorithm => {
  const refs = gradientRefs(profile)
  const plan: DdpPlan = {
    ...how,
    buckets: buckets.map(({ parameters }) => parameters.map((index) => refs[index]!)),
    wire: wireOf(wire)
  }
  return {
    periodSteps: 1,
    warmupSteps: 1,
    wire,
    describe: () => ({ buckets }),
    program: (build, steps, from) => distributedDataParallel(build, plan, steps, from),
    gradientsLast: plan.deadline === "next-use",
    fixedRanks: "a step's batch is that of all ranks together, so with more or fewer it would be another run"
  }
}
