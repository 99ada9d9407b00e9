// How much memory activations take beside gradients at the worst moment of a step, where gradients come and go within it, as
// PyTorch's do that are set to none: they come layer by layer as what the layers kept goes. Knows shapes; nothing of machines.
import { dtypeBits, sizeBytesOf } from "../../machine/tensor.ts"
import type { SavedBytes } from "../../models/eager-memory.ts"
import type { LayerGraph } from "../../models/layer-graph.ts"
import { layOut } from "./shard/layout.ts"
import type { ShardPlan } from "./shard/plan.ts"

/** Bytes that gradients of each layer take once it has run backward, and while it does beside these. */
interface GradientBytes {
  readonly left: ReadonlyArray<number>
  readonly working: ReadonlyArray<number>
}

const wholeGradients = ({ layers }: LayerGraph): GradientBytes => ({
  left: layers.map(({ parameters }) => parameters.reduce((sum, { elements }) => sum + 4 * elements, 0)),
  working: layers.map(() => 0)
})

/** In parts: a unit's whole gradients, and what of them is summed, until its last layer is done. */
const dividedGradients = (
  { layers }: LayerGraph,
  { division, ranks, gradients, parameterDtype = "float32", reduceDtype }: ShardPlan
): GradientBytes => {
  const left = layers.map(() => 0)
  const working = layers.map(() => 0)
  const wider = dtypeBits[reduceDtype] > dtypeBits[parameterDtype]
  const kept = wider ? reduceDtype : parameterDtype
  for (const unit of division) {
    const shapes = unit.layers.flatMap((layer) => layers[layer]!.parameters.map(({ shape }) => shape))
    const part = layOut(
      shapes.map((shape) => ({ shape, dtype: parameterDtype })),
      ranks
    ).reduce((sum, { partElements }) => sum + partElements, 0)
    const first = unit.layers[0]!
    const last = unit.layers.at(-1)!
    // All of the unit's whole gradients from its last layer on; the sum when its first is done.
    for (let layer = first; layer <= last; layer++)
      working[layer]! += sizeBytesOf(ranks * part, parameterDtype)
    if (wider) working[first]! += sizeBytesOf(ranks * part, reduceDtype)
    left[first]! += gradients ? sizeBytesOf(part, kept) : sizeBytesOf(ranks * part, kept)
  }
  return { left, working }
}

/** The most bytes of activations and gradients together, at any moment of a backward pass. */
export const backwardPeakBytes = (
  graph: LayerGraph,
  saved: ReadonlyArray<SavedBytes>,
  shard: ShardPlan | undefined
): number => {
  const { left, working } = shard === undefined ? wholeGradients(graph) : dividedGradients(graph, shard)
  let kept = saved.reduce((sum, one) => sum + one.kept, 0)
  let gradients = 0
  let most = 0
  for (let layer = saved.length - 1; layer >= 0; layer--) {
    // The layer's own gradients lie there before what it kept is gone.
    most = Math.max(most, kept + gradients + left[layer]! + working[layer]! + saved[layer]!.working)
    kept -= saved[layer]!.kept
    gradients += left[layer]!
  }
  return most
}
