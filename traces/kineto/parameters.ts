// The model's parameters from the gradients of its backward pass. Knows layers only by number.
import { counted } from "../../core/units.ts"
import type { ProfiledParameter } from "../../core/profile.ts"
import type { HostTree } from "./host-tree.ts"
import type { Layers } from "./layers.ts"
import { sortedRows } from "./by-id.ts"
import { stepAt, type Step } from "./steps.ts"
import type { GradientShape } from "./trace.ts"

export interface GradientRow {
  readonly row: number
  readonly node: number
  readonly shape: GradientShape
}

/** AccumulateGrad ops with a shape, in the order they ran: of each step those from one position to the next. */
export class Gradients {
  readonly #tree: HostTree
  /** Places in the trace's columns, by start; those of step i are `[#from[i], #from[i + 1])`. */
  readonly #places: Int32Array
  readonly #from: Int32Array

  /** `values`: places that are no parameter's. */
  constructor(tree: HostTree, steps: ReadonlyArray<Step>, values: ReadonlySet<number>) {
    this.#tree = tree
    const { row } = tree.trace.gradients
    const start = (place: number): number => tree.start(row.values[place]!)
    const sorted = sortedRows(row.length, (a, b) => start(a) - start(b) || a - b)
    this.#places = sorted.filter((place) => stepAt(steps, start(place)) >= 0 && !values.has(place))
    this.#from = new Int32Array(steps.length + 1)
    for (const place of this.#places) this.#from[stepAt(steps, start(place)) + 1]!++
    for (let step = 0; step < steps.length; step++) this.#from[step + 1]! += this.#from[step]!
  }

  countOf(step: number): number {
    return this.#from[step + 1]! - this.#from[step]!
  }

  /** The gradient of a step at a position of it. */
  at(step: number, position: number): GradientRow {
    const { parent, trace } = this.#tree
    const { row: rows, shape, shapes } = trace.gradients
    const place = this.#places[this.#from[step]! + position]!
    const row = rows.values[place]!
    let node = row
    while (parent[node]! >= 0 && !this.#tree.isNode(node)) node = parent[node]!
    return { row, node: this.#tree.isNode(node) ? node : row, shape: shapes[shape.values[place]!]! }
  }

  ofStep(step: number): ReadonlyArray<GradientRow> {
    return Array.from({ length: this.countOf(step) }, (_, position) => this.at(step, position))
  }
}

/**
 * Each parameter once, in the order its gradient becomes ready. `layerOf` says whose backward makes it.
 */
export const chooseParameters = (
  tree: HostTree,
  layers: Layers,
  steps: number,
  gradients: Gradients,
  layerOf: (gradient: GradientRow) => number | undefined,
  warnings: Array<string>
): ReadonlyArray<ProfiledParameter> => {
  const { trace } = tree
  let firstStep = 0
  while (firstStep < steps && gradients.countOf(firstStep) === 0) firstStep++
  if (firstStep === steps) {
    warnings.push(
      trace.names.texts.some((name) => name.includes("AccumulateGrad"))
        ? "AccumulateGrad events have no shapes (record_shapes=False): the profile has no parameters"
        : "no gradients were recorded (no backward pass, or no host events): the profile has no parameters"
    )
    return []
  }
  const { shapeless, row } = trace.gradients
  if (shapeless > 0)
    warnings.push(
      `${shapeless} of ${shapeless + row.length} AccumulateGrad events have no shape or received nothing: their parameters are missing, and what is sent of the model is too little by them`
    )
  const first = gradients.ofStep(firstStep)
  const identity = (gradient: GradientRow): string => {
    const layer = layerOf(gradient)
    return `${layer === undefined ? "" : (layers.owners[layer] ?? layer)} ${gradient.shape.shape.join("x")}`
  }
  const line = first.map(identity)
  // Gradient accumulation runs the backward pass several times a step; each parameter counts once, in the first pass's layer. Of
  // all layers' backward passes, which go from the last layer to the first, that is the last, which makes the gradient whole;
  // and the first forward pass is the first to read it.
  // Ops have no names of their own by which one that comes again were known.
  const period = tree.frames === "ops" ? first.length / passesOf(tree, first) : shortestPeriod(line)
  const once = period < line.length && layers.owners.length > 0 ? first.slice(0, period) : first
  if (once.length < first.length) {
    warnings.push(
      `${first.length / period} backward passes per step (accumulated gradients, or several steps that nothing divides): parameters are those of one, whose gradients are whole after all; to simulate other numbers of batches, or a model in parts, profile a step of one and say training.accumulate`
    )
  }
  for (let step = firstStep + 1; step < steps; step++) {
    const count = gradients.countOf(step)
    if (count === 0) continue
    if (count !== first.length || line.some((item, i) => identity(gradients.at(step, i)) !== item)) {
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
    parameters.push({ layer, ...gradient.shape })
  }
  if (orphans > 0)
    warnings.push(
      `${counted(orphans, "parameter", "has no known layer and was", "have no known layer and were")} given to the one before`
    )
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
