// Elementwise arithmetic that schedules need: copies, pseudo-gradients, mixing of replicas. All may run in place.
import type { Shape } from "./kernel.ts"
import { defineKernel, number } from "./kernel.ts"
import { printShape } from "./signature.ts"

/** out = inp. */
export const copy = defineKernel({
  name: "copy",
  moves: true,
  signature: "inp[...] -> out[...]",
  flops: () => 0,
  reference: ([inp], [out]) => out.set(inp)
})

/** inp = 0: clears a gradient or a buffer in place (the operand stands on both sides so that it has a shape). */
export const zero = defineKernel({
  name: "zero",
  signature: "inp[...] -> out[...]",
  flops: () => 0,
  readBytes: () => 0,
  reference: (_, [out]) => {
    out.fill(0)
  }
})

/** out = inp1 + inp2. */
export const add = defineKernel({
  name: "add",
  signature: "inp1[...], inp2[...] -> out[...]",
  inPlace: [
    [0, 0],
    [1, 0]
  ],
  flops: ({ rows }) => rows,
  reference: ([inp1, inp2], [out], { rows }) => {
    for (let i = 0; i < rows; i++) out[i] = inp1[i]! + inp2[i]!
  }
})

/** out = inp1 - inp2; the pseudo-gradient of DiLoCo is subtract(outer, inner). */
export const subtract = defineKernel({
  name: "subtract",
  moves: true,
  signature: "inp1[...], inp2[...] -> out[...]",
  flops: ({ rows }) => rows,
  reference: ([inp1, inp2], [out], { rows }) => {
    for (let i = 0; i < rows; i++) out[i] = inp1[i]! - inp2[i]!
  }
})

/** out = factor * inp; gradient scaling and unscaling. */
export const scale = defineKernel({
  name: "scale",
  signature: "inp[...] -> out[...]",
  attributes: { factor: number() },
  scalars: ["factor"],
  flops: ({ rows }) => rows,
  reference: ([inp], [out], { rows, a }) => {
    for (let i = 0; i < rows; i++) out[i] = a.factor * inp[i]!
  }
})

/**
 * out = (1 - weight) * start + weight * end, as torch.lerp. Streaming DiLoCo's mixing (arXiv:2501.18512, section 2)
 * alpha * local + (1 - alpha) * global is lerp(global, local) with weight alpha.
 */
export const lerp = defineKernel({
  name: "lerp",
  moves: true,
  signature: "start[...], end[...] -> out[...]",
  attributes: { weight: number() },
  scalars: ["weight"],
  flops: ({ rows }) => 3 * rows,
  reference: ([start, end], [out], { rows, a }) => {
    for (let i = 0; i < rows; i++) out[i] = (1 - a.weight) * start[i]! + a.weight * end[i]!
  }
})

const sameShapes = (kernel: string, inputs: ReadonlyArray<Shape>): Shape => {
  const first = inputs[0]
  if (first === undefined) throw new RangeError(`${kernel}: no inputs; expected at least one`)
  for (const [index, shape] of inputs.entries()) {
    if (shape.length !== first.length || shape.some((extent, i) => extent !== first[i])) {
      throw new RangeError(
        `${kernel}: input ${index} has shape ${printShape(shape)}; expected ${printShape(first)}, as input 0`
      )
    }
  }
  return first
}

/** out = mean of the inputs, however many. */
export const average = defineKernel({
  name: "average",
  moves: true,
  signature: "inp[...] (one or more) -> out[...]",
  shapes: (inputs) => [sameShapes("average", inputs)],
  // the additions and the division
  flops: (_, inputs) => inputs.length * inputs[0].elements,
  reference: (inputs, [out]) => {
    for (let i = 0; i < out.length; i++) {
      let sum = 0
      for (const inp of inputs) sum += inp[i]!
      out[i] = sum / inputs.length
    }
  }
})
