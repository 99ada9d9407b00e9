// Products in TF32 as a pure rewrite of a layer graph: its linear layers read float32 factors rounded to 10 bits of mantissa, as
// torch.backends.cuda.matmul.allow_tf32 has it. Attention, and products of experts, stay as they are. Knows no values.
import type { KernelCall, LayerGraph } from "./layer-graph.ts"

const linear: ReadonlySet<string> = new Set([
  "linear.forward",
  "linear.backward_input",
  "linear.backward_weight"
])

/** The graph whose linear layers multiply in TF32. */
export const inTf32 = (graph: LayerGraph): LayerGraph => {
  const rounding = (call: KernelCall): KernelCall =>
    linear.has(call.kernel) ? { ...call, attributes: { ...call.attributes, tf32: true } } : call
  return {
    ...graph,
    layers: graph.layers.map((layer) => ({
      ...layer,
      forward: layer.forward.map(rounding),
      backwardInput: layer.backwardInput.map(rounding),
      backwardWeight: layer.backwardWeight.map(rounding)
    }))
  }
}
