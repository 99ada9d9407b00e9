// What PyTorch in eager mode keeps of a forward pass for the backward pass, layer by layer: the tensors that autograd saves of the
// usual modules (Hugging Face's), each counted once. What this project's own executor keeps is placement.ts's. Knows shapes alone.
import type { Operand } from "../kernels/kernel.ts"
import type { KernelCall, LayerGraph, Value } from "./layer-graph.ts"
import { recomputesBlocks, type Recompute } from "./recompute.ts"

/**
 * `autocast`: parameters and residual stream in float32, products in 16 bits, with a copy of each weight; `eager`: everything in
 * 16 bits, as under FSDP with a 16-bit `param_dtype`, but norms, which go through float32, and the loss.
 */
export type EagerPrecision = "autocast" | "eager"

/**
 * Whether the training loop holds what the head made through the backward pass: `outputs = model(...)`, and then
 * `outputs.loss.backward()`, does, and `model(...).loss.backward()` does not.
 */
export const outputChoices = ["held", "dropped"] as const
type Output = (typeof outputChoices)[number]

interface EagerSettings {
  readonly precision: EagerPrecision
  /** Default: nothing. */
  readonly recompute?: Recompute
  /** Default: held. */
  readonly output?: Output
}

/** Bytes of one layer. */
export interface SavedBytes {
  /** From its forward pass to its backward pass. */
  readonly kept: number
  /** While its backward pass runs, beside what is kept: what was computed again. */
  readonly working: number
}

const wide = 4
const narrow = 2
/**
 * Of a logit in float32, when the backward pass begins: its log-softmax, and the gradients of the loss by that and by the logit itself.
 * So PyTorch's allocator had it in a step of a Llama under FSDP2 (docs/sharding.md).
 */
const lossBytes = 3 * wide

const rowsOf = ({ shape }: Operand): number => shape.slice(0, -1).reduce((rows, extent) => rows * extent, 1)

/** Bytes that each layer keeps, in forward order. With `recompute: block` a block keeps what goes into it, in its first layer. */
export const eagerSavedBytes = (
  { layers }: LayerGraph,
  { precision, recompute = "none", output = "held" }: EagerSettings
): ReadonlyArray<SavedBytes> => {
  const autocast = precision === "autocast"
  const stream = autocast ? wide : narrow
  const saved = new Set<string>()
  // Float32 under autocast: whoever multiplies them makes a narrow copy for itself.
  const wideValues = new Set<string>()
  const once = (name: string, bytes: number): number => {
    if (saved.has(name)) return 0
    saved.add(name)
    return bytes
  }
  const narrowCopy = ({ name, elements }: Value): number =>
    autocast && wideValues.has(name) ? narrow * elements : once(name, narrow * elements)

  const bytesOf = ({ kernel, inputs, outputs, attributes }: KernelCall): number => {
    const [x, weight] = inputs as readonly [Value, Value]
    switch (kernel) {
      case "layer_norm.forward":
        if (autocast) for (const { name } of outputs) wideValues.add(name)
        return once(`${x.name} before a norm`, stream * x.elements) + 2 * wide * rowsOf(x)
      case "rms_norm.forward":
        if (autocast) for (const { name } of outputs) wideValues.add(name)
        return wide * x.elements + stream * x.elements + wide * rowsOf(x)
      case "linear.forward":
      case "grouped_linear.forward":
        return narrowCopy(x) + (autocast ? once(weight.name, narrow * weight.elements) : 0)
      case "rope.forward":
        return 0
      case "attention.forward": {
        const [out] = outputs as readonly [Value]
        const heads = Number(attributes["heads"] ?? 1)
        const operands = inputs.reduce((bytes, value) => bytes + once(value.name, narrow * value.elements), 0)
        // Keys and values are copied into a cache that nobody reads again (`use_cache`, off where blocks are computed again): where
        // they are parts of one tensor with the queries, these keep all of it.
        const cached =
          inputs.length === 1 && !recomputesBlocks(recompute) ? narrow * (x.elements - out.elements) : 0
        // The projection behind it needs what comes out, computed again or not; what is spared are the logarithms of its sums.
        const result = once(out.name, narrow * out.elements)
        return operands + cached + result + (recompute === "attention" ? 0 : wide * heads * rowsOf(out))
      }
      case "gelu.forward":
        // Its cube, its tangent, one more than that, and half of it: the formula in Python, whose power is taken in float32.
        if (autocast) for (const { name } of outputs) wideValues.add(name)
        return (autocast ? 3 * wide + narrow : 4 * narrow) * x.elements
      case "swiglu.forward":
        return 3 * narrow * outputs[0]!.elements
      case "residual.forward":
      case "embedding.forward":
      case "position_add.forward":
        return 0
      case "softmax_cross_entropy.forward":
        return (lossBytes + (output === "held" ? narrow : 0)) * x.elements
      // What routes and moves tokens keeps what it reads.
      case "topk_gate.forward":
      case "moe_permutation":
      case "moe_dispatch.forward":
      case "moe_combine.forward":
        return inputs.reduce((bytes, value) => bytes + once(value.name, narrow * value.elements), 0)
      default:
        throw new RangeError(`${kernel}: what eager PyTorch keeps of it is not known`)
    }
  }

  const all = layers.map(({ forward }) => forward.reduce((bytes, call) => bytes + bytesOf(call), 0))
  if (!recomputesBlocks(recompute)) return all.map((kept) => ({ kept, working: 0 }))
  // All of a block is there again when its last layer runs backward, and goes layer by layer, as checkpoint hands a tensor out once.
  const again = new Map<string, number>()
  return layers.map(({ name, block, forward: [call] }, index) => {
    if (block === name) return { kept: all[index]!, working: 0 }
    const earlier = again.get(block)
    const input = call?.inputs[0]
    const kept = earlier === undefined && input !== undefined ? stream * input.elements : 0
    // A norm that needs no float32 copy of what goes into the block saves that tensor itself.
    const itself = call?.kernel === "layer_norm.forward" || (autocast && call?.kernel === "rms_norm.forward")
    const working = (earlier ?? 0) + all[index]! - (itself ? kept : 0)
    again.set(block, working)
    return { kept, working }
  })
}
