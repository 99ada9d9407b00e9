// How much memory activations take beside gradients at the worst moment of a step, where gradients come and go within it, as
// PyTorch's do that are set to none: they come layer by layer as what the layers kept goes. Knows shapes; nothing of machines.
import { sizeBytesOf } from "../../machine/tensor.ts"
import type { SavedBytes } from "../../models/eager-memory.ts"
import { gradientName, type LayerGraph } from "../../models/layer-graph.ts"
import type { Accumulation } from "./accumulation.ts"
import { layOut } from "./shard/layout.ts"
import type { ShardPlan } from "./shard/plan.ts"
import { castToSum } from "./shard/travel.ts"

/** Bytes that gradients take in a backward pass, the last of several where a step has several: none holds more. */
interface GradientBytes {
  /** All the time. */
  readonly held: number
  /** Of each layer once it has run backward, and while it does beside these. */
  readonly left: ReadonlyArray<number>
  readonly working: ReadonlyArray<number>
}

interface BackwardOptions {
  readonly shard?: ShardPlan | undefined
  readonly accumulation?: Accumulation | undefined
  /** Gradients stay from step to step, as they do beside DDP's buckets. */
  readonly stay?: boolean
}

/** One that is tied is there from its first use in the backward pass on, and added to what stays once it is complete. */
const wholeGradients = ({ layers }: LayerGraph, stay: boolean): GradientBytes => {
  const left = layers.map(() => 0)
  const working = layers.map(() => 0)
  let held = 0
  for (const [completed, { parameters }] of layers.entries())
    for (const parameter of parameters) {
      const bytes = 4 * parameter.elements
      const name = gradientName(parameter)
      const begun = layers.findLastIndex(({ backwardWeight }) =>
        backwardWeight.some(({ outputs }) => outputs.some((output) => output.name === name))
      )
      const from = Math.max(begun, completed)
      if (stay) {
        held += bytes
        for (let layer = completed; layer <= from; layer++) working[layer]! += bytes
      } else left[from]! += bytes
    }
  return { held, left, working }
}

/**
 * In parts: a unit's whole gradients, and what of them is summed, until its last layer is done. Of several micro-batches there is the
 * mean all the time: of whole gradients, or of parts, each of which lies there for a moment as it was summed.
 */
const dividedGradients = (
  { layers }: LayerGraph,
  { division, ranks, parameters, gradients, parameterDtype = "float32", reduceDtype, copies }: ShardPlan,
  { synchronize }: Partial<Accumulation>
): GradientBytes => {
  const left = layers.map(() => 0)
  const working = layers.map(() => 0)
  let held = 0
  const recast = castToSum(parameterDtype, reduceDtype)
  const kept = recast ? reduceDtype : parameterDtype
  for (const unit of division) {
    const shapes = unit.layers.flatMap((layer) => layers[layer]!.parameters.map(({ shape }) => shape))
    const part = layOut(
      shapes.map((shape) => ({ shape, dtype: parameterDtype })),
      ranks
    ).reduce((sum, { partElements }) => sum + partElements, 0)
    const whole = ranks * part
    const first = unit.layers[0]!
    const last = unit.layers.at(-1)!
    // All of the unit's whole gradients from its last layer on; the sum when its first is done.
    for (let layer = first; layer <= last; layer++) working[layer]! += sizeBytesOf(whole, parameterDtype)
    if (synchronize === "last") {
      held += sizeBytesOf(whole, "float32")
      continue
    }
    // Those that stay whole are summed where they stay.
    if (gradients && (recast || (copies && parameters))) working[first]! += sizeBytesOf(whole, kept)
    if (synchronize === undefined) {
      left[first]! += sizeBytesOf(gradients ? part : whole, kept)
      if (!gradients && !recast) working[first]! -= sizeBytesOf(whole, kept)
      continue
    }
    held += sizeBytesOf(part, "float32") + (gradients ? 0 : sizeBytesOf(whole, kept))
    if (gradients) working[first]! += sizeBytesOf(part, kept)
  }
  return { held, left, working }
}

/** The most bytes of activations and gradients together, at any moment of a backward pass. */
export const backwardPeakBytes = (
  graph: LayerGraph,
  saved: ReadonlyArray<SavedBytes>,
  { shard, accumulation, stay = false }: BackwardOptions = {}
): number => {
  const { held, left, working } =
    shard === undefined
      ? wholeGradients(graph, stay || accumulation !== undefined)
      : dividedGradients(graph, shard, accumulation ?? {})
  let kept = saved.reduce((sum, one) => sum + one.kept, 0)
  let gradients = held
  let most = 0
  for (let layer = saved.length - 1; layer >= 0; layer--) {
    // The layer's own gradients lie there before what it kept is gone.
    most = Math.max(most, kept + gradients + left[layer]! + working[layer]! + saved[layer]!.working)
    kept -= saved[layer]!.kept
    gradients += left[layer]!
  }
  return most
}
