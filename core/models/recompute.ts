// Activation recomputation (arXiv:1604.06174): a pure rewrite of a layer graph before it is placed. What a segment keeps is what goes
// into it and what others read of it; the rest is computed again before its backward pass, by the same calls on the same values.
// Knows which call reads what; nothing of machines, memory or time.
import { dtypeBits } from "../machine/tensor.ts"
import { fuse, type FuseRule } from "./fuse.ts"
import type { KernelCall, Layer, LayerGraph, Value } from "./layer-graph.ts"

/**
 * What is computed again: nothing; attention alone, with what turns its queries and keys (the selective recomputation of
 * arXiv:2205.05198, of which flash attention leaves these and its result); each block as far as its backward pass reads it, as PyTorch's
 * checkpoint does from 2.1 on (early stop); or each block to its end, as it does with `use_reentrant=True`.
 */
export const recomputeChoices = ["none", "attention", "block", "whole-block"] as const
export type Recompute = (typeof recomputeChoices)[number]

/** Whether whole blocks keep what goes into them. */
export const recomputesBlocks = (recompute: Recompute): boolean =>
  recompute === "block" || recompute === "whole-block"

/** Layers (indices) whose forward pass is computed again together. */
type Segment = ReadonlySet<number>

const isAttention = ({ kernel }: KernelCall): boolean => kernel === "attention.forward"

const segmentsOf = ({ layers }: LayerGraph, recompute: Recompute): ReadonlyArray<Segment> => {
  if (recompute === "none") return []
  if (recomputesBlocks(recompute)) {
    const inside = [...layers.keys()].filter((index) => layers[index]!.block !== layers[index]!.name)
    return [...Map.groupBy(inside, (index) => layers[index]!.block).values()].map((own) => new Set(own))
  }
  // With the layers that read its result: nobody else does, so that need not be kept.
  return layers.flatMap(({ forward }, index) => {
    const results = new Set(forward.filter(isAttention).flatMap(({ outputs }) => outputs.map(nameOf)))
    if (results.size === 0) return []
    const readers = [...layers.keys()].filter((other) =>
      layers[other]!.forward.some(({ inputs }) => inputs.some(({ name }) => results.has(name)))
    )
    return [new Set([index, ...readers])]
  })
}

const nameOf = ({ name }: Value): string => name

const allCalls = ({ forward, backwardInput, backwardWeight }: Layer): ReadonlyArray<KernelCall> => [
  ...forward,
  ...backwardInput,
  ...backwardWeight
]

const again = (value: Value): Value => ({ ...value, name: `${value.name}.again` })

/** The layers with one segment's forward pass, to its end or as far as its backward pass needs it, at the beginning of that. */
const withSegment = (
  layers: ReadonlyArray<Layer>,
  segment: Segment,
  toItsEnd: boolean
): ReadonlyArray<Layer> => {
  const own = [...segment].toSorted((a, b) => a - b)
  const forward = own.flatMap((index) => layers[index]!.forward)
  const readOutside = new Set(
    layers.flatMap((layer, index) =>
      segment.has(index) ? [] : allCalls(layer).flatMap(({ inputs }) => inputs.map(nameOf))
    )
  )
  const dropped = new Set(
    forward.flatMap(({ outputs }) => outputs.map(nameOf)).filter((name) => !readOutside.has(name))
  )
  const needed = new Set(
    own
      .flatMap((index) => [...layers[index]!.backwardInput, ...layers[index]!.backwardWeight])
      .flatMap(({ inputs }) => inputs.map(nameOf))
      .filter((name) => dropped.has(name))
  )
  const anew: Array<KernelCall> = []
  const reading = (values: ReadonlyArray<Value>) =>
    values.map((value) => (dropped.has(value.name) ? again(value) : value))
  for (const call of forward.toReversed()) {
    if (!toItsEnd && !call.outputs.some(({ name }) => needed.has(name))) continue
    for (const { name } of call.inputs) if (dropped.has(name)) needed.add(name)
    anew.unshift({ ...call, inputs: reading(call.inputs), outputs: call.outputs.map(again) })
  }
  const last = own.at(-1)!
  const backward = (calls: ReadonlyArray<KernelCall>) =>
    calls.map((call): KernelCall => ({ ...call, inputs: reading(call.inputs) }))
  return layers.map((layer, index) =>
    segment.has(index)
      ? {
          ...layer,
          backwardInput: [...(index === last ? anew : []), ...backward(layer.backwardInput)],
          backwardWeight: backward(layer.backwardWeight)
        }
      : layer
  )
}

/**
 * The graph as real kernels run it: fused, and computing again what `recompute` says. A block's first norm is fused with the sum
 * before it and sees that unrounded, so where the stream is narrower than float32 it must be computed from the sum's operands again:
 * both are kept for each block. Of float32 the sum alone is.
 */
export const trainingGraph = (
  graph: LayerGraph,
  recompute: Recompute = "none",
  rules?: ReadonlyArray<FuseRule>
): LayerGraph => {
  const narrow = graph.layers.some(({ forward }) =>
    forward.some(({ outputs }) => outputs.some(({ dtype }) => dtypeBits[dtype] < dtypeBits.float32))
  )
  return narrow ? recomputed(fuse(graph, rules), recompute) : fuse(recomputed(graph, recompute), rules)
}

/** The graph whose backward pass computes again what `recompute` says: the same gradients, from values that live shorter. */
export const recomputed = (graph: LayerGraph, recompute: Recompute): LayerGraph => ({
  ...graph,
  layers: segmentsOf(graph, recompute).reduce(
    (layers, segment) => withSegment(layers, segment, recompute === "whole-block"),
    graph.layers
  )
})
