// Loss scaling as a pure rewrite of a layer graph: the loss's gradient is multiplied by a scale that lies on the device, and all
// gradients with it. Knows shapes and names of values; nothing of how the scale is chosen.
import { operand } from "../kernels/kernel.ts"
import type { KernelCall, LayerGraph, Value } from "./layer-graph.ts"

/** What `loss_scale` keeps; whoever makes a model's tensors supplies it. */
export const lossScaling: Value = { name: "loss scale", ...operand([4], "float32") }

/** The graph with every gradient times the first number of `lossScaling`. */
export const withScaledLoss = (graph: LayerGraph): LayerGraph => {
  const scaled = (call: KernelCall): KernelCall =>
    call.kernel === "softmax_cross_entropy.backward"
      ? {
          ...call,
          inputs: [...call.inputs, lossScaling],
          attributes: { ...call.attributes, scaled: true }
        }
      : call
  return {
    ...graph,
    layers: graph.layers.map((layer) => ({ ...layer, backwardInput: layer.backwardInput.map(scaled) }))
  }
}
