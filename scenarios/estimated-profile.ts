// The times of a described model's layers from what its kernels are estimated to take. Knows no scenario: what kernels cost is given.
import type { Costed, TracedCostModel } from "../core/cost/cost-model.ts"
import { eagerCountOf } from "../core/cost/host.ts"
import { kernels } from "../core/kernels/catalogue.ts"
import { operand } from "../core/kernels/kernel.ts"
import { elementsOf } from "../core/machine/tensor.ts"
import { eagerKernels } from "../core/models/eager-kernels.ts"
import type { EagerPrecision } from "../core/models/eager-memory.ts"
import type { KernelCall, LayerGraph } from "../core/models/layer-graph.ts"
import type { LayerCost, PhaseCost, Profile } from "../core/profile.ts"

/** This project's, fused; or eager PyTorch's, in 16 bits throughout or under autocast. */
export type KernelsOf = "fused" | EagerPrecision

export const phase = (seconds: number): PhaseCost => ({ busySeconds: seconds, spanSeconds: seconds })

/**
 * Layer times as the sum of their kernels' costs; AdamW over each layer's parameters in one launch. `eager`: the same model before
 * kernels were fused, whose launches a host in eager mode makes.
 */
export const estimateProfile = (
  graph: LayerGraph,
  eager: LayerGraph,
  costs: TracedCostModel,
  kernelsOf: KernelsOf,
  device: string
): Profile => {
  const callSeconds = (call: KernelCall): number => {
    const { kernel, inputs, outputs, attributes } = call
    const itself = () =>
      costs.cost({ kernel: kernels[kernel], reads: inputs, writes: outputs, attributes }).seconds
    if (kernelsOf === "fused") return itself()
    const run = eagerKernels(call, kernelsOf)
    if (run === undefined) throw new RangeError(`${kernel}: what eager PyTorch runs for it is not known`)
    return run.moved.reduce(
      (seconds, bytes) => seconds + costs.cost(movingKernel(bytes)).seconds,
      run.itself ? itself() : 0
    )
  }
  const sum = (calls: ReadonlyArray<KernelCall>) =>
    calls.reduce((seconds, call) => seconds + callSeconds(call), 0)
  const launched = (plain: ReadonlyArray<KernelCall>, fused: ReadonlyArray<KernelCall>) => ({
    eager: plain.reduce((count, { kernel }) => count + eagerCountOf(kernel), 0),
    once: fused.length
  })
  const layers = graph.layers.map((fused, index): LayerCost => {
    const plain = eager.layers[index]!
    const layer = kernelsOf === "fused" ? fused : plain
    const backward = [...layer.backwardInput, ...layer.backwardWeight]
    const states = layer.parameters.map(({ shape }) => operand(shape, "float32"))
    const update = {
      kernel: kernels.adamw,
      reads: [...states, ...states, ...states, ...states],
      writes: [...states, ...states, ...states],
      attributes: adamwAttributes
    }
    return {
      name: layer.name,
      forward: { ...phase(sum(layer.forward)), launches: launched(plain.forward, layer.forward) },
      backward: {
        ...phase(sum(layer.backwardInput) + sum(layer.backwardWeight)),
        launches: launched([...plain.backwardInput, ...plain.backwardWeight], backward)
      },
      optimizer: {
        ...phase(states.length === 0 ? 0 : costs.cost(update).seconds),
        launches: states.length === 0 ? { eager: 0, once: 0 } : { eager: 1, once: 1 }
      }
    }
  })
  const parameters = graph.layers.flatMap((layer, index) =>
    layer.parameters.map(({ shape }) => ({ layer: index, shape, dtype: "float32" }))
  )
  const total = layers.reduce(
    (seconds, { forward, backward, optimizer }) =>
      seconds + forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds,
    0
  )
  return {
    name: graph.name,
    device,
    source: `estimated from its kernels (${device})`,
    steps: 0,
    stepSeconds: total,
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: total,
    unattributedShare: 0,
    layers,
    parameters: parameters.toReversed().filter(({ shape }) => elementsOf(shape) > 0),
    ops: [],
    collectives: []
  }
}

/** A kernel that reads and writes so many bytes together. */
const movingKernel = (bytes: number): Costed => {
  const half = operand([Math.ceil(bytes / 2)], "int8")
  return { kernel: kernels.copy, reads: [half], writes: [half], attributes: {} }
}

const adamwAttributes = { learningRate: 1e-3, step: 1 }
