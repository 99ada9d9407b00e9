// What a scenario says of the activations of a training step: whose way of keeping them, and what is computed again instead.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { backwardPeakBytes } from "../../../core/algorithms/data-parallel/activations.ts"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { planShards, type ShardPlan } from "../../../core/algorithms/data-parallel/shard/plan.ts"
import { blocksOf } from "../../../core/algorithms/data-parallel/blocks.ts"
import type { Estimate } from "../../../core/cost/provenance.ts"
import { withDefault } from "../../../core/fields.ts"
import { InputError } from "../../../core/input-error.ts"
import { eagerSavedBytes, outputChoices } from "../../../core/models/eager-memory.ts"
import { parameterCount, sharingLayers, type LayerGraph } from "../../../core/models/layer-graph.ts"
import { recomputesBlocks, recomputeChoices, type Recompute } from "../../../core/models/recompute.ts"
import { elementsOf } from "../../../core/machine/tensor.ts"
import type { LayerCost, PhaseCost, Profile } from "../../../core/profile.ts"
import { misfit } from "../../model.ts"
import { isArchitecture, modelGraph } from "../../model-graph.ts"
import { ArchitectureSettings } from "../../sections.ts"
import type { DataParallelScenario } from "./scenario.ts"
import { accumulationOf } from "./training-settings.ts"

export const ActivationSettings = Schema.Struct({
  /**
   * `fused`: this project's kernels and arena. `eager`: PyTorch's, in 16 bits throughout, as under FSDP with a 16-bit
   * `param_dtype`. `autocast`: PyTorch's with parameters and residual stream in float32. Default: `keptBy`.
   */
  by: Schema.optionalKey(Schema.Literals(["fused", "eager", "autocast"])),
  /** The architecture of a profiled model, whose profile does not say it. */
  of: Schema.optionalKey(ArchitectureSettings),
  /** Computed again in the backward pass rather than kept; see `Recompute`. */
  recompute: withDefault(Schema.Literals(recomputeChoices), "none"),
  /** PyTorch DDP's option of that name: gradients lie in its buckets alone, one layer's beside them; else beside all buckets. */
  gradientAsBucketView: withDefault(Schema.Boolean, false),
  /** Whether the training loop holds the model's output, its logits in 16 bits, through the backward pass; see `Output`. */
  output: withDefault(Schema.Literals(outputChoices), "held")
})
export type ActivationSettings = typeof ActivationSettings.Type

/** Whose way of keeping activations counts: as said; else of a described model that of the kernels that it is timed by, of a profile PyTorch's. */
export const keptBy = ({
  model,
  kernels,
  activations
}: DataParallelScenario): NonNullable<ActivationSettings["by"]> =>
  activations?.by ?? (isArchitecture(model) ? kernels : "autocast")

const usualActivations = Schema.decodeUnknownSync(ActivationSettings)({})

/** What a rank keeps beside the model, bytes. */
interface KeptBytes {
  /** Of activations and gradients together, where gradients come and go. */
  readonly backwardBytes: number
  /** Copies of what travels. */
  readonly bufferBytes: number
}

/** What the scenario's activations take; undefined where nothing says them, or they lie in this project's arena. */
export const keptBytes = (
  scenario: DataParallelScenario,
  profile: Profile,
  planned: PlannedAlgorithm,
  shard: ShardPlan | undefined,
  ranks: number,
  file: string
): Effect.Effect<KeptBytes | undefined, InputError> =>
  Effect.gen(function* () {
    const { model, activations, training } = scenario
    // Nobody has said what a profiled model is.
    if (activations === undefined && !isArchitecture(model)) return undefined
    const by = keptBy(scenario)
    const { of, recompute, gradientAsBucketView, output } = activations ?? usualActivations
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field: `activations.${field}`, value: String(value), accepted })
    if (by === "fused") {
      if (!isArchitecture(model))
        return yield* refuse(
          "by",
          by,
          "eager or autocast, of a profile; fused is for a model described by its architecture"
        )
      return undefined
    }
    if (of !== undefined && isArchitecture(model))
      return yield* refuse(
        "of",
        Object.keys(of)[0],
        "no such field: the model is described by its architecture"
      )
    if (recompute === "attention" && !isArchitecture(model))
      return yield* refuse(
        "recompute",
        recompute,
        "none, block or whole-block: a profile does not say which of its layers are attention"
      )
    // Time goes by the profile's layers, memory by the architecture: without blocks there is none to compute again.
    if (
      !isArchitecture(model) &&
      recomputesBlocks(recompute) &&
      blocksOf(profile.layers.map(({ name }) => name)).every((one) => one === undefined)
    )
      return yield* refuse(
        "recompute",
        recompute,
        "none: the model's layers are in no blocks, so what computing those again takes is not known; a profile whose layers are named by module, or a described model, has them"
      )
    const described = of ?? (isArchitecture(model) ? model : undefined)
    if (described === undefined)
      return yield* refuse(
        "of",
        "none",
        "the architecture of the profiled model, {gpt2}, {llama} or {mixtral} with its sizes"
      )
    const wrong = misfit(described)
    if (wrong !== undefined) return yield* refuse(`of.${wrong.field}`, wrong.value, wrong.accepted)
    const graph = modelGraph(described, "bfloat16", "float32")
    const counted = profile.parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)
    const stated = parameterCount(graph)
    if (stated !== counted)
      return yield* refuse(
        "of",
        `${stated} parameters`,
        `an architecture of the ${counted} parameters that the profile has`
      )
    const saved = eagerSavedBytes(graph, { precision: by, recompute, output })
    const own =
      shard &&
      planShards(
        graph.layers.map(({ name }) => name),
        shard,
        shard,
        sharingLayers(graph)
      )
    const buckets = own === undefined && ranks > 1 ? planned.describe().buckets : undefined
    return {
      backwardBytes: backwardPeakBytes(graph, saved, {
        shard: own,
        accumulation: accumulationOf(training),
        stay: buckets !== undefined
      }),
      // What stays of gradients is the buckets themselves, where gradients are views into them.
      bufferBytes: gradientAsBucketView
        ? 0
        : (buckets ?? []).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    }
  })

/**
 * Refuses what would read parameters that are given back by then: a block computes again all at once, so they must be gathered
 * together, or stay.
 */
export const requireGathered = (
  { model, activations }: DataParallelScenario,
  names: ReadonlyArray<string>,
  { parameters, reshardAfterForward, division }: ShardPlan,
  file: string
): Effect.Effect<void, InputError> => {
  const { recompute = "none" } = activations ?? {}
  if (!recomputesBlocks(recompute) || !parameters || !reshardAfterForward) return Effect.void
  const blocks = isArchitecture(model)
    ? modelGraph(model).layers.map(({ name, block }) => (block === name ? undefined : block))
    : blocksOf(names)
  const apart = division.find(
    ({ root, layers }) =>
      !root &&
      layers.some((layer) => blocks[layer] !== undefined) &&
      blocks.some((block, other) => block === blocks[layers[0]!] && !layers.includes(other))
  )
  return apart === undefined
    ? Effect.void
    : Effect.fail(
        new InputError({
          file,
          field: "activations.recompute",
          value: recompute,
          accepted: `none or attention where layers of a block are gathered one by one (${apart.name}); or shard.units: block of a model of several, or shard.reshardAfterForward: false`
        })
      )
}

/** Of a described model, whose kernels are known one by one: what its graph computes again. */
export const recomputedInGraph = ({ model, activations }: DataParallelScenario): Recompute =>
  isArchitecture(model) ? (activations?.recompute ?? "none") : "none"

/** The profile with what is computed again in its backward passes, all of a layer, where it is not from a graph that has that already. */
export const recomputing = ({ model, activations }: DataParallelScenario, profile: Profile): Profile => {
  if (activations === undefined || activations.recompute === "none" || isArchitecture(model)) return profile
  const { recompute, of } = activations
  const blocks = blocksOf(profile.layers.map(({ name }) => name))
  // `keptBytes` refuses attention of a profile; a plan is made with one that has the described model's layers.
  const attention =
    recompute === "attention" && of !== undefined ? attentionLayers(modelGraph(of)) : new Set()
  const again = (index: number): boolean =>
    recomputesBlocks(recompute) ? blocks[index] !== undefined : attention.has(index)
  const layers = profile.layers.map((layer, index): LayerCost =>
    again(index) ? { ...layer, backward: plus(layer.backward, layer.forward) } : layer
  )
  const more = layers.reduce(
    (sum, { backward }, index) => sum + backward.spanSeconds - profile.layers[index]!.backward.spanSeconds,
    0
  )
  return { ...profile, layers, stepSeconds: profile.stepSeconds + more }
}

/** What `recomputing` adds to measured times. */
export const recomputedEstimates = ({ model, activations }: DataParallelScenario): ReadonlyArray<Estimate> =>
  activations === undefined || activations.recompute === "none" || isArchitecture(model)
    ? []
    : [
        {
          kernel: "blocks computed again",
          source: "scaled",
          detail: "as their whole forward passes were measured, in their backward passes"
        }
      ]

const plus = (one: PhaseCost, other: PhaseCost): PhaseCost => ({
  busySeconds: one.busySeconds + other.busySeconds,
  spanSeconds: one.spanSeconds + other.spanSeconds,
  ...(one.launches === undefined || other.launches === undefined
    ? {}
    : {
        launches: {
          eager: one.launches.eager + other.launches.eager,
          once: one.launches.once + other.launches.once
        }
      })
})

const attentionLayers = ({ layers }: LayerGraph): ReadonlySet<number> =>
  new Set(
    layers.flatMap(({ forward }, index) =>
      forward.some(({ kernel }) => kernel === "attention.forward") ? [index] : []
    )
  )
