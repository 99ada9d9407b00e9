// Elementwise non-linearities of feed-forward layers, and the residual addition.
import { defineKernel, flag } from "./kernel.ts"

const root = Math.sqrt(2 / Math.PI)
const cubic = 0.044715

/** GPT-2's gelu: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
export const geluForward = defineKernel({
  name: "gelu.forward",
  signature: "inp[...] -> out[...]",
  flops: ({ rows }) => 8 * rows,
  reference: ([inp], [out], { rows }) => {
    for (let i = 0; i < rows; i++) {
      const x = inp[i]!
      out[i] = 0.5 * x * (1 + Math.tanh(root * (x + cubic * x * x * x)))
    }
  }
})

export const geluBackward = defineKernel({
  name: "gelu.backward",
  signature: "inp[...], dout[...] -> dinp[...]",
  inPlace: [[1, 0]],
  flops: ({ rows }) => 16 * rows,
  reference: ([inp, dout], [dinp], { rows }) => {
    for (let i = 0; i < rows; i++) {
      const x = inp[i]!
      const tangent = Math.tanh(root * (x + cubic * x * x * x))
      const slope = root * (1 + 3 * cubic * x * x)
      dinp[i] = dout[i]! * (0.5 * (1 + tangent) + 0.5 * x * (1 - tangent * tangent) * slope)
    }
  }
})

const gateAndUp = "gateUp[..., 2*width]?packed, gate[..., width]?!packed, up[..., width]?!packed"

/** Index of a row's first gate and first up element, packed side by side (gate first, as Mixtral's gate_up_proj) or apart. */
const starts = (packed: boolean, row: number, width: number): readonly [gate: number, up: number] =>
  packed ? [2 * row * width, (2 * row + 1) * width] : [row * width, row * width]

/** out = silu(gate) * up, silu(x) = x / (1 + exp(-x)). */
export const swigluForward = defineKernel({
  name: "swiglu.forward",
  signature: `${gateAndUp} -> out[..., width]`,
  attributes: { packed: flag(false) },
  flops: ({ rows, dim }) => 5 * rows * dim("width"),
  reference: (inputs, [out], { a, rows, dim }) => {
    const width = dim("width")
    const [gate, up] = [inputs[0], a.packed ? inputs[0] : inputs[1]]
    for (let row = 0; row < rows; row++) {
      const [gateAt, upAt] = starts(a.packed, row, width)
      for (let c = 0; c < width; c++) {
        const x = gate[gateAt + c]!
        out[row * width + c] = (x / (1 + Math.exp(-x))) * up[upAt + c]!
      }
    }
  }
})

export const swigluBackward = defineKernel({
  name: "swiglu.backward",
  signature:
    `${gateAndUp}, dout[..., width] -> ` +
    "dgateUp[..., 2*width]?packed, dgate[..., width]?!packed, dup[..., width]?!packed",
  attributes: { packed: flag(false) },
  flops: ({ rows, dim }) => 11 * rows * dim("width"),
  reference: (inputs, outputs, { a, rows, dim }) => {
    const width = dim("width")
    const [gate, up, dout] = [inputs[0], inputs[a.packed ? 0 : 1], inputs[a.packed ? 1 : 2]]
    const [dgate, dup] = [outputs[0], outputs[a.packed ? 0 : 1]]
    for (let row = 0; row < rows; row++) {
      const [gateAt, upAt] = starts(a.packed, row, width)
      for (let c = 0; c < width; c++) {
        const x = gate[gateAt + c]!
        const y = up[upAt + c]!
        const gradient = dout[row * width + c]!
        const sigmoid = 1 / (1 + Math.exp(-x))
        dgate[gateAt + c] = gradient * y * sigmoid * (1 + x * (1 - sigmoid))
        dup[upAt + c] = gradient * x * sigmoid
      }
    }
  }
})

/** out = inp1 + inp2. */
export const residualForward = defineKernel({
  name: "residual.forward",
  signature: "inp1[...], inp2[...] -> out[...]",
  flops: ({ rows }) => rows,
  reference: ([inp1, inp2], [out], { rows }) => {
    for (let i = 0; i < rows; i++) out[i] = inp1[i]! + inp2[i]!
  }
})

/** Both gradients are `dout`; a program that may share the tensor needs no kernel at all. */
export const residualBackward = defineKernel({
  name: "residual.backward",
  signature: "dout[...] -> dinp1[...], dinp2[...]",
  flops: () => 0,
  reference: ([dout], [dinp1, dinp2], { rows }) => {
    for (let i = 0; i < rows; i++) {
      const gradient = dout[i]!
      dinp1[i] = gradient
      dinp2[i] = gradient
    }
  }
})
