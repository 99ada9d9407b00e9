// What a model's parameters hold before training: drawn from a seed and the parameter's own name, so that every rank begins
// alike and no parameter depends on how many others there are. Each element is drawn by its place in the whole parameter, so a
// rank that holds a part of it draws that part alone.
import type { Drawn } from "../machine/tensor.ts"
import { splitSeed } from "../random.ts"
import type { LayerGraph, Value } from "./layer-graph.ts"

const deviation = 0.02

/**
 * GPT-2's rule (Radford et al. 2019, section 2.3; Hugging Face's `_init_weights`): norms start at 1, biases at 0, all else
 * normal with deviation 0.02, and the last matrix of each layer that adds to the residual stream divided by the square root
 * of the number of such layers.
 * Which is which shows in the calls of a graph that has not been fused.
 */
export const initialParameters = (
  graph: LayerGraph,
  seed: number
): ((parameter: Value) => ReadonlyArray<Drawn>) => {
  const own = splitSeed(seed, "parameters")
  const norms = new Set<string>()
  const residual = new Set<string>()
  for (const { forward, parameters } of graph.layers) {
    for (const { kernel, inputs } of forward) {
      if (kernel === "layer_norm.forward" || kernel === "rms_norm.forward") norms.add(inputs[1]!.name)
      if (kernel !== "residual.forward") continue
      const last = parameters.findLast(({ shape }) => shape.length > 1)
      if (last !== undefined) residual.add(last.name)
    }
  }
  return ({ name, shape, elements, usedRows = shape[0] ?? 1 }) => {
    if (norms.has(name)) return [constant(1)]
    if (shape.length < 2) return []
    const scale = residual.has(name) ? deviation / Math.sqrt(residual.size) : deviation
    const count = (elements / (shape[0] ?? 1)) * usedRows
    return [normal(splitSeed(own, name), scale, { count })]
  }
}

/** Elements that are drawn, where not all are: core/kernels/initial-values.ts. */
type Window = Readonly<Partial<Record<"first" | "at" | "count" | "columns" | "stride", number>>>

/** Mean 0. */
export const normal = (seed: number, deviation: number, window: Window = {}): Drawn => ({
  kernel: "normal_values",
  attributes: { seed, deviation, ...window }
})

export const uniform = (seed: number, low: number, high: number, window: Window = {}): Drawn => ({
  kernel: "uniform_values",
  attributes: { seed, low, high, ...window }
})

export const constant = (value: number): Drawn => ({ kernel: "constant_values", attributes: { value } })
