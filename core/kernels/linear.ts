// Linear layers, weight [out, in] as PyTorch's nn.Linear. The two halves of the backward pass are separate kernels, because
// schedules run the activation gradient first and fill bubbles with the weight gradient.
import { defineKernel, flag } from "./kernel.ts"

/** out[..., o] = sum over i of inp[..., i] * weight[o, i] (+ bias[o]). FLOPs 2 * rows * in * out; the bias is not counted. */
export const linearForward = defineKernel({
  name: "linear.forward",
  signature: "inp[..., in], weight[out, in], bias[out]? -> out[..., out]",
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: rows, k: dim("in"), n: dim("out") }),
  reference: (inputs, [out], { rows, dim }) => {
    const [inp, weight] = inputs
    const bias = inputs.length > 2 ? inputs[2] : undefined
    const [width, outWidth] = [dim("in"), dim("out")]
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < outWidth; o++) {
        let sum = bias === undefined ? 0 : bias[o]!
        for (let i = 0; i < width; i++) sum += inp[row * width + i]! * weight[o * width + i]!
        out[row * outWidth + o] = sum
      }
    }
  }
})

/** dinp[..., i] = sum over o of dout[..., o] * weight[o, i]. */
export const linearBackwardInput = defineKernel({
  name: "linear.backward_input",
  signature: "dout[..., out], weight[out, in] -> dinp[..., in]",
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: rows, k: dim("out"), n: dim("in") }),
  reference: ([dout, weight], [dinp], { rows, dim }) => {
    const [width, outWidth] = [dim("in"), dim("out")]
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < width; i++) {
        let sum = 0
        for (let o = 0; o < outWidth; o++) sum += dout[row * outWidth + o]! * weight[o * width + i]!
        dinp[row * width + i] = sum
      }
    }
  }
})

/** dweight[o, i] = sum over rows of dout[row, o] * inp[row, i]; with `bias`, dbias[o] = sum over rows of dout[row, o]. */
export const linearBackwardWeight = defineKernel({
  name: "linear.backward_weight",
  signature:
    "dout[..., out], inp[..., in], dweight[out, in]?accumulate, dbias[out]?accumulate&bias" +
    " -> dweight[out, in], dbias[out]?bias",
  attributes: { bias: flag(false), accumulate: flag(false) },
  flops: ({ rows, dim }) => 2 * rows * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ rows, dim }) => ({ m: dim("out"), k: rows, n: dim("in") }),
  reference: (inputs, [dweight, dbias], { rows, dim, a }) => {
    const [dout, inp] = inputs
    const [width, outWidth] = [dim("in"), dim("out")]
    const before = a.accumulate ? inputs[2] : undefined
    const beforeBias = a.accumulate ? inputs[3] : undefined
    for (let o = 0; o < outWidth; o++) {
      for (let i = 0; i < width; i++) {
        let sum = before === undefined ? 0 : before[o * width + i]!
        for (let row = 0; row < rows; row++) sum += dout[row * outWidth + o]! * inp[row * width + i]!
        dweight[o * width + i] = sum
      }
      if (!a.bias) continue
      let sum = beforeBias === undefined ? 0 : beforeBias[o]!
      for (let row = 0; row < rows; row++) sum += dout[row * outWidth + o]!
      dbias[o] = sum
    }
  }
})
