// From settings to a program: makes the plan with the pure planners and says what it decided. The same for both
// machines; what a message costs is asked of whoever knows the links.
import * as Result from "effect/Result"
import type { Program } from "../../machine/machine.ts"
import { sizeBytesOf, type Dtype } from "../../machine/tensor.ts"
import { elementsOf } from "../../machine/tensor.ts"
import type { Profile } from "../../profile.ts"
import { distributedDataParallel, type DdpPlan, type GradientRef } from "./ddp.ts"
import { diloco, type DilocoPlan } from "./diloco.ts"
import { partialLocalSgd, type PartialLocalSgdPlan } from "./partial-local-sgd.ts"
import { ddpBuckets, perLayerBuckets, singleBucket, type Bucket } from "./plan/buckets.ts"
import { syncProblem, type Deadline, type SyncProblem, type UpdateOrder } from "./plan/cost.ts"
import { fillBubbles } from "./plan/dreamddp.ts"
import { FragmentSettingsError, planFragments } from "./plan/fragments.ts"
import { planSync } from "./plan/planners.ts"
import type { SyncPlan } from "./plan/sync-plan.ts"
import type { DataParallelSettings } from "./settings.ts"
import type { TrainingModelBuilder } from "./training-model.ts"

/** What planning needs to know of the model and the links. */
export interface PlanningFacts {
  readonly profile: Profile
  /** Seconds of a layer's phase: device time with or without the host's gaps. */
  readonly phaseSeconds: (cost: { readonly busySeconds: number; readonly spanSeconds: number }) => number
  /** Seconds of one all-reduce of that many bytes over all ranks, alone on the links. */
  readonly allReduceSeconds: (sizeBytes: number) => number
}

/** A planned algorithm, ready to run for any number of steps. */
export interface PlannedAlgorithm {
  readonly settings: DataParallelSettings
  /** The schedule repeats after this many steps; measure over a multiple of it. */
  readonly periodSteps: number
  /** Steps before the schedule is in its steady state. */
  readonly warmupSteps: number
  readonly plan:
    | { readonly kind: "ddp"; readonly buckets: ReadonlyArray<Bucket>; readonly details: DdpPlan }
    | {
        readonly kind: "partial-local-sgd"
        readonly sync: SyncPlan
        readonly problem: SyncProblem
        readonly details: PartialLocalSgdPlan
      }
    | { readonly kind: "local-sgd"; readonly exposedSeconds: number; readonly details: PartialLocalSgdPlan }
    | { readonly kind: "diloco"; readonly details: DilocoPlan }
  readonly program: (build: TrainingModelBuilder, steps: number) => Program<void>
}

/** Plans the algorithm; fails when settings do not fit the model's layers. */
export const planDataParallel = (
  settings: DataParallelSettings,
  facts: PlanningFacts
): Result.Result<PlannedAlgorithm, FragmentSettingsError> => {
  switch (settings.name) {
    case "s-sgd":
      return Result.succeed(planDdp(settings, facts, "single", "end-of-backward", false))
    case "ddp":
      return Result.succeed(planDdp(settings, facts, settings.buckets, settings.deadline, true))
    case "local-sgd":
      return Result.succeed(planLocalSgd(settings, facts))
    case "partial-local-sgd":
    case "dreamddp":
      return Result.succeed(planPartial(settings, facts))
    case "diloco":
    case "streaming-diloco":
      return planDiloco(settings, facts)
  }
}

/** Index of each parameter among its layer's, in the profile's gradient-ready order. */
const gradientRefs = (profile: Profile): ReadonlyArray<GradientRef> => {
  const seen = new Map<number, number>()
  return profile.parameters.map(({ layer }) => {
    const parameter = seen.get(layer) ?? 0
    seen.set(layer, parameter + 1)
    return { layer, parameter }
  })
}

const planDdp = (
  settings: Extract<DataParallelSettings, { name: "s-sgd" | "ddp" }>,
  { profile }: PlanningFacts,
  bucketing: "sized" | "per-layer" | "single",
  deadline: Deadline,
  overlap: boolean
): PlannedAlgorithm => {
  // Limits count the gradients' own bytes, as PyTorch's do, whatever they are rounded to on the wire.
  const sizes = profile.parameters.map(({ layer, shape, dtype }) => ({
    layer,
    sizeBytes: sizeBytesOf(elementsOf(shape), "float32"),
    dtype
  }))
  const buckets =
    bucketing === "single"
      ? singleBucket(sizes)
      : bucketing === "per-layer"
        ? perLayerBuckets(sizes)
        : settings.name === "ddp"
          ? ddpBuckets(sizes, {
              bucketBytes: settings.bucketBytes,
              firstBucketBytes: settings.firstBucketBytes
            })
          : ddpBuckets(sizes)
  const refs = gradientRefs(profile)
  const details: DdpPlan = {
    buckets: buckets.map(({ parameters }) => parameters.map((index) => refs[index]!)),
    overlap,
    deadline,
    wire: wireOf(settings.wire)
  }
  return {
    settings,
    periodSteps: 1,
    warmupSteps: 1,
    plan: { kind: "ddp", buckets, details },
    program: (build, steps) => distributedDataParallel(build, details, steps)
  }
}

/** Messages are of float32 tensors: rounding them to float32 on the wire is no rounding. */
const wireOf = (wire: Dtype): Dtype | undefined => (wire === "float32" ? undefined : wire)

/** Bytes of each layer's parameters in `wire`. */
const layerBytes = (profile: Profile, wire: Dtype): ReadonlyArray<number> => {
  const elements = profile.layers.map(() => 0)
  for (const { layer, shape } of profile.parameters) elements[layer]! += elementsOf(shape)
  return elements.map((count) => sizeBytesOf(count, wire))
}

const problemOf = (
  facts: PlanningFacts,
  period: number,
  wire: Dtype,
  deadline: Deadline,
  order: UpdateOrder
): SyncProblem => {
  const { profile, phaseSeconds, allReduceSeconds } = facts
  const bytes = layerBytes(profile, wire)
  return syncProblem(
    profile.layers.map(({ forward, backward, optimizer }, index) => ({
      forwardSeconds: phaseSeconds(forward),
      backwardSeconds: phaseSeconds(backward),
      updateSeconds: phaseSeconds(optimizer),
      communicationSeconds: bytes[index] === 0 ? 0 : allReduceSeconds(bytes[index]!),
      hasParameters: bytes[index] !== 0
    })),
    { period, deadline, order }
  )
}

const planPartial = (
  settings: Extract<DataParallelSettings, { name: "partial-local-sgd" | "dreamddp" }>,
  facts: PlanningFacts
): PlannedAlgorithm => {
  const { period, wire, deadline, order } = settings
  const problem = problemOf(facts, period, wire, deadline, order)
  const planned = planSync(problem, settings.name === "dreamddp" ? settings.planner : "equal-number")
  const sync = settings.name === "dreamddp" && settings.fillBubbles ? fillBubbles(problem, planned) : planned
  const details: PartialLocalSgdPlan = {
    sets: sync.sets,
    order,
    deadline,
    overlap: true,
    wire: wireOf(wire)
  }
  return {
    settings,
    periodSteps: period,
    warmupSteps: period,
    plan: { kind: "partial-local-sgd", sync, problem, details },
    program: (build, steps) => partialLocalSgd(build, details, steps)
  }
}

const planLocalSgd = (
  settings: Extract<DataParallelSettings, { name: "local-sgd" }>,
  facts: PlanningFacts
): PlannedAlgorithm => {
  const { period, wire } = settings
  const layers = facts.profile.layers.map((_, index) => facts.profile.layers.length - 1 - index)
  const sets = Array.from({ length: period }, (_, h) => (h === period - 1 ? layers : []))
  const details: PartialLocalSgdPlan = {
    sets,
    order: "step-then-average",
    deadline: "end-of-backward",
    overlap: false,
    wire: wireOf(wire)
  }
  const exposedSeconds = facts.allReduceSeconds(
    layerBytes(facts.profile, wire).reduce((sum, bytes) => sum + bytes, 0)
  )
  return {
    settings,
    periodSteps: period,
    warmupSteps: period,
    plan: { kind: "local-sgd", exposedSeconds, details },
    program: (build, steps) => partialLocalSgd(build, details, steps)
  }
}

const defaultFragments = 8

const planDiloco = (
  settings: Extract<DataParallelSettings, { name: "diloco" | "streaming-diloco" }>,
  { profile }: PlanningFacts
): Result.Result<PlannedAlgorithm, FragmentSettingsError> => {
  const streaming = settings.name === "streaming-diloco"
  const layers = profile.layers.length
  if (streaming && settings.fragments !== undefined && settings.layersPerFragment !== undefined) {
    return Result.fail(
      new FragmentSettingsError({
        field: "fragments",
        value: settings.fragments,
        accepted: "either fragments or layersPerFragment"
      })
    )
  }
  const schedule = planFragments(
    streaming
      ? {
          layers,
          period: settings.period,
          layersPerFragment: Math.min(
            settings.layersPerFragment ?? Math.ceil(layers / (settings.fragments ?? defaultFragments)),
            layers
          ),
          pattern: settings.pattern,
          offsets: settings.offsets,
          delaySteps: settings.delaySteps,
          localShare: settings.localShare
        }
      : {
          layers,
          period: settings.period,
          layersPerFragment: layers,
          pattern: "sequential",
          offsets: "rounded",
          delaySteps: 0,
          localShare: 0
        }
  )
  return Result.map(schedule, (fragments): PlannedAlgorithm => {
    const details: DilocoPlan = {
      schedule: fragments,
      outerLearningRate: settings.outerLearningRate,
      outerMomentum: settings.outerMomentum,
      deadline: settings.deadline,
      overlap: streaming ? true : settings.overlap,
      wire: wireOf(settings.wire)
    }
    return {
      settings,
      periodSteps: settings.period,
      warmupSteps: settings.period,
      plan: { kind: "diloco", details },
      program: (build, steps) => diloco(build, details, steps)
    }
  })
}
