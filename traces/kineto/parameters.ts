// The model's parameters from the gradients of its backward pass. Knows layers only by number.
import type { ProfiledParameter } from "../../core/profile.ts"
import type { HostTree } from "./host-tree.ts"
import type { Layers } from "./layers.ts"
import { stepAt, type Step } from "./steps.ts"

export interface GradientRow {
  readonly row: number
  readonly step: number
  readonly node: number
}

/** AccumulateGrad ops with a shape, in the order they ran. */
export const gradientRows = (tree: HostTree, steps: ReadonlyArray<Step>): ReadonlyArray<GradientRow> =>
  [...tree.trace.gradients.keys()]
    .map((row) => {
      let node = row
      while (tree.parent[node]! >= 0 && !tree.isNode(node)) node = tree.parent[node]!
      return { row, step: stepAt(steps, tree.start(row)), node: tree.isNode(node) ? node : row }
    })
    .filter(({ step }) => step >= 0)
    .toSorted((a, b) => tree.start(a.row) - tree.start(b.row))

/**
 * Each parameter once, in the order its gradient becomes ready. `layerOf` says whose backward makes it.
 */
export const chooseParameters = (
  tree: HostTree,
  layers: Layers,
  perStep: ReadonlyArray<ReadonlyArray<GradientRow>>,
  layerOf: (gradient: GradientRow) => number | undefined,
  warnings: Array<string>
): ReadonlyArray<ProfiledParameter> => {
  const { trace } = tree
  const first = perStep.find((gradients) => gradients.length > 0)
  if (first === undefined) {
    warnings.push(
      trace.names.texts.some((name) => name.includes("AccumulateGrad"))
        ? "AccumulateGrad events have no shapes (record_shapes=False): the profile has no parameters"
        : "no gradients were recorded (no backward pass, or no host events): the profile has no parameters"
    )
    return []
  }
  const shapeOf = ({ row }: GradientRow) => trace.gradients.get(row)!
  const identity = (gradient: GradientRow): string => {
    const layer = layerOf(gradient)
    return `${layer === undefined ? "" : (layers.owners[layer] ?? layer)} ${shapeOf(gradient).shape.join("x")}`
  }
  const line = first.map(identity)
  // Gradient accumulation runs the backward pass several times a step; each parameter counts once, as in the last.
  // Ops have no names of their own by which one that comes again were known.
  const period = tree.frames === "ops" ? first.length / passesOf(tree, first) : shortestPeriod(line)
  const once = period < line.length && layers.owners.length > 0 ? first.slice(-period) : first
  if (once.length < first.length) {
    warnings.push(
      `${first.length / period} backward passes per step (accumulated gradients, or several steps that nothing divides): parameters are those of one`
    )
  }
  for (const [step, gradients] of perStep.entries()) {
    if (gradients === first || gradients.length === 0) continue
    if (
      gradients.length !== first.length ||
      gradients.some((gradient, i) => identity(gradient) !== line[i])
    ) {
      warnings.push(`step ${step} makes gradients in another order than the first; the first step's is used`)
      break
    }
  }
  const parameters: Array<ProfiledParameter> = []
  let orphans = 0
  for (const gradient of once) {
    let layer = layerOf(gradient)
    if (layer === undefined) {
      orphans++
      layer = parameters.at(-1)?.layer ?? 0
    }
    parameters.push({ layer, ...shapeOf(gradient) })
  }
  if (orphans > 0)
    warnings.push(`${orphans} parameters have no known layer and were given to the one before them`)
  return parameters
}

/** Backward passes that made these gradients: a forward op stands between two. One where they made different numbers of them. */
const passesOf = (tree: HostTree, gradients: ReadonlyArray<GradientRow>): number => {
  const forward: Array<number> = []
  for (const row of tree.order)
    if (tree.isFrame[row] === 1 && tree.inBackward[row] === 0) forward.push(tree.start(row))
  forward.sort((a, b) => a - b)
  let at = 0
  let inPass = 0
  const passes: Array<number> = []
  for (const { row } of gradients) {
    const from = at
    while (at < forward.length && forward[at]! < tree.start(row)) at++
    if (at > from && inPass > 0) {
      passes.push(inPass)
      inPass = 0
    }
    inPass++
  }
  return passes.every((count) => count === inPass) ? passes.length + 1 : 1
}

/** Smallest p that divides the length such that the line repeats every p. */
const shortestPeriod = (line: ReadonlyArray<string>): number => {
  for (let period = 1; period < line.length; period++) {
    if (line.length % period === 0 && line.every((item, i) => i < period || item === line[i - period]))
      return period
  }
  return line.length
}
