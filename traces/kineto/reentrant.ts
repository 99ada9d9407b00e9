// Backward passes inside an autograd node: how a checkpoint of the older, reentrant kind (Megatron's, DeepSpeed's,
// `use_reentrant=True`) makes a function's values again and differentiates them. Knows nothing of layers.
import { shapeKey } from "./shapes.ts"
import type { HostTree } from "./host-tree.ts"

/** The innermost autograd node around a host row, itself included; -1 outside all. */
export const nodeAround = (tree: HostTree, row: number): number => {
  let at = row
  while (at >= 0 && !tree.isNode(at)) at = tree.parent[at]!
  return at
}

/** The node inside of which a gradient was added up, beside AccumulateGrad itself; -1 for none. */
const outerNode = (tree: HostTree, row: number): number => {
  let at = nodeAround(tree, row)
  while (at >= 0 && tree.sequence(at) < 0) at = nodeAround(tree, tree.parent[at]!)
  return at
}

/**
 * Places in `trace.gradients` that are gradients of values: such a function's inputs are detached, so that its backward pass
 * ends at them as it does at parameters. Of a function's inputs the gradients come last, for they need all of its others.
 */
export const inputGradients = (tree: HostTree, forwardOf: (node: number) => number): ReadonlySet<number> => {
  const { gradients, functionInputs } = tree.trace
  const found = new Set<number>()
  if (functionInputs.size === 0) return found
  const byNode = new Map<number, Array<number>>()
  for (let place = 0; place < gradients.row.length; place++) {
    const node = outerNode(tree, gradients.row.values[place]!)
    if (node < 0) continue
    const within = byNode.get(node)
    if (within === undefined) byNode.set(node, [place])
    else within.push(place)
  }
  const start = (place: number): number => tree.start(gradients.row.values[place]!)
  for (const [node, places] of byNode) {
    let row = forwardOf(node)
    while (row >= 0 && !functionInputs.has(row)) row = tree.parent[row]!
    const left = new Map<string, number>()
    for (const shape of functionInputs.get(row) ?? []) left.set(shape, (left.get(shape) ?? 0) + 1)
    for (const place of places.toSorted((a, b) => start(b) - start(a))) {
      const shape = shapeKey(gradients.shapes[gradients.shape.values[place]!]!.shape)
      const count = left.get(shape) ?? 0
      if (count === 0) continue
      left.set(shape, count - 1)
      found.add(place)
    }
  }
  return found
}

/** What a host row inside backward passes is made again of: the op outside them all whose node it is in; -1 where none was recorded. */
export const firstMade = (tree: HostTree, forwardOf: (node: number) => number, row: number): number => {
  let at = row
  while (at >= 0 && tree.inBackward[at] === 1) {
    const node = nodeAround(tree, at)
    const outer = forwardOf(node)
    at = outer >= 0 && tree.start(outer) < tree.start(node) ? outer : -1
  }
  return at
}
