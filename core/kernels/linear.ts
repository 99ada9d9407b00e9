// Linear layers, weight [out, in] as PyTorch's nn.Linear. The two halves of the backward pass are separate kernels, because
// schedules run the activation gradient first and fill bubbles with the weight gradient.
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, flag } from "./kernel.ts"
import { sumsOfProducts } from "./products.ts"
import { toTf32 } from "./rounding.ts"

/** Whether products read their factors rounded to TF32 (10 bits of mantissa); sums are float32. */
const tf32 = flag(false)

/** A factor as products read it. */
const factorOf = (values: TensorData, rounded: boolean): ArrayLike<number> =>
  rounded ? Float64Array.from(values, toTf32) : values

/** out[..., o] = sum over i of inp[..., i] * weight[o, i] (+ bias[o]). FLOPs 2 * rows * in * out; the bias is not counted. */
export const linearForward = defineKernel({
  name: "linear.forward",
  signature: "inp[..., in], weight[out, in], bias[out]? -> out[..., out]",
  attributes: { tf32 },
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: rows, k: dim("in"), n: dim("out") }),
  reference: (inputs, [out], { rows, dim, a }) => {
    const [inp, weight] = [factorOf(inputs[0], a.tf32), factorOf(inputs[1], a.tf32)]
    const bias = inputs.length > 2 ? inputs[2] : undefined
    const [width, outWidth] = [dim("in"), dim("out")]
    const row = { of: inp, stride: width, termStride: 1 }
    const column = { of: weight, stride: width, termStride: 1 }
    sumsOfProducts(out, rows, outWidth, width, row, column, bias && ((at) => bias[at % outWidth]!))
  }
})

/** dinp[..., i] = sum over o of dout[..., o] * weight[o, i]. */
export const linearBackwardInput = defineKernel({
  name: "linear.backward_input",
  signature: "dout[..., out], weight[out, in] -> dinp[..., in]",
  attributes: { tf32 },
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: rows, k: dim("out"), n: dim("in") }),
  reference: ([dout, weight], [dinp], { rows, dim, a }) => {
    const [width, outWidth] = [dim("in"), dim("out")]
    const row = { of: factorOf(dout, a.tf32), stride: outWidth, termStride: 1 }
    const column = { of: factorOf(weight, a.tf32), stride: 1, termStride: width }
    sumsOfProducts(dinp, rows, width, outWidth, row, column)
  }
})

/** dweight[o, i] = sum over rows of dout[row, o] * inp[row, i]; with `bias`, dbias[o] = sum over rows of dout[row, o]. */
export const linearBackwardWeight = defineKernel({
  name: "linear.backward_weight",
  signature:
    "dout[..., out], inp[..., in], dweight[out, in]?accumulate, dbias[out]?accumulate&bias" +
    " -> dweight[out, in], dbias[out]?bias",
  attributes: { bias: flag(false), accumulate: flag(false), tf32 },
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: dim("out"), k: rows, n: dim("in") }),
  reference: (inputs, [dweight, dbias], { rows, dim, a }) => {
    const [dout, inp] = inputs
    const [width, outWidth] = [dim("in"), dim("out")]
    const before = a.accumulate ? inputs[2] : undefined
    const beforeBias = a.accumulate ? inputs[3] : undefined
    const row = { of: factorOf(dout, a.tf32), stride: 1, termStride: outWidth }
    const column = { of: factorOf(inp, a.tf32), stride: 1, termStride: width }
    sumsOfProducts(dweight, outWidth, width, rows, row, column, before && ((at) => before[at]!))
    if (!a.bias) return
    for (let o = 0; o < outWidth; o++) {
      let sum = beforeBias === undefined ? 0 : beforeBias[o]!
      for (let row = 0; row < rows; row++) sum += dout[row * outWidth + o]!
      dbias[o] = sum
    }
  }
})
