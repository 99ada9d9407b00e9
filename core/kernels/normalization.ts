// LayerNorm and RMSNorm over the last axis. The row statistics are outputs of the forward pass, in float32, so that the
// backward pass need not recompute them (as in llm.c).
import { defineKernel, flag, number } from "./kernel.ts"

const statistics = [undefined, "float32", "float32"] as const

/** out = (inp - mean) * rstd * weight + bias, rstd = 1 / sqrt(variance + epsilon), variance over the width (biased). */
export const layerNormForward = defineKernel({
  name: "layer_norm.forward",
  signature: "inp[..., width], weight[width], bias[width] -> out[..., width], mean[...], rstd[...]",
  attributes: { epsilon: number(1e-5) },
  outputDtypes: statistics,
  // sum, subtract-square-sum (3), subtract, scale, weight, bias
  flops: ({ rows, dim }) => 8 * rows * dim("width"),
  reference: ([inp, weight, bias], [out, mean, rstd], { rows, dim, a }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      let sum = 0
      for (let c = 0; c < width; c++) sum += inp[at + c]!
      const center = sum / width
      let squares = 0
      for (let c = 0; c < width; c++) squares += (inp[at + c]! - center) ** 2
      const scale = 1 / Math.sqrt(squares / width + a.epsilon)
      for (let c = 0; c < width; c++) {
        out[at + c] = (inp[at + c]! - center) * scale * weight[c]! + bias[c]!
      }
      mean[row] = center
      rstd[row] = scale
    }
  }
})

/** dinp = rstd * (dnorm - mean(dnorm) - norm * mean(dnorm * norm)) with dnorm = dout * weight, norm = (inp - mean) * rstd. */
export const layerNormBackwardInput = defineKernel({
  name: "layer_norm.backward_input",
  signature: "dout[..., width], inp[..., width], weight[width], mean[...], rstd[...] -> dinp[..., width]",
  // norm (2), dnorm, two sums (3), result (4)
  flops: ({ rows, dim }) => 10 * rows * dim("width"),
  reference: ([dout, inp, weight, mean, rstd], [dinp], { rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      let sum = 0
      let sumWithNorm = 0
      for (let c = 0; c < width; c++) {
        const gradient = dout[at + c]! * weight[c]!
        sum += gradient
        sumWithNorm += gradient * (inp[at + c]! - mean[row]!) * rstd[row]!
      }
      for (let c = 0; c < width; c++) {
        const norm = (inp[at + c]! - mean[row]!) * rstd[row]!
        const gradient = dout[at + c]! * weight[c]!
        dinp[at + c] = rstd[row]! * (gradient - sum / width - (norm * sumWithNorm) / width)
      }
    }
  }
})

/** dweight = sum over rows of dout * norm, dbias = sum over rows of dout. */
export const layerNormBackwardWeight = defineKernel({
  name: "layer_norm.backward_weight",
  signature:
    "dout[..., width], inp[..., width], mean[...], rstd[...], dweight[width]?accumulate, dbias[width]?accumulate" +
    " -> dweight[width], dbias[width]",
  attributes: { accumulate: flag(false) },
  flops: ({ rows, dim }) => 5 * rows * dim("width"),
  reference: ([dout, inp, mean, rstd, before, beforeBias], [dweight, dbias], { rows, dim, a }) => {
    const width = dim("width")
    for (let c = 0; c < width; c++) {
      let sum = a.accumulate ? before[c]! : 0
      let sumBias = a.accumulate ? beforeBias![c]! : 0
      for (let row = 0; row < rows; row++) {
        const gradient = dout[row * width + c]!
        sum += gradient * (inp[row * width + c]! - mean[row]!) * rstd[row]!
        sumBias += gradient
      }
      dweight[c] = sum
      dbias[c] = sumBias
    }
  }
})

/** out = inp * rstd * weight, rstd = 1 / sqrt(mean(inp^2) + epsilon). */
export const rmsNormForward = defineKernel({
  name: "rms_norm.forward",
  signature: "inp[..., width], weight[width] -> out[..., width], rstd[...]",
  attributes: { epsilon: number(1e-5) },
  outputDtypes: [undefined, "float32"],
  flops: ({ rows, dim }) => 4 * rows * dim("width"),
  reference: ([inp, weight], [out, rstd], { rows, dim, a }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      let squares = 0
      for (let c = 0; c < width; c++) squares += inp[at + c]! ** 2
      const scale = 1 / Math.sqrt(squares / width + a.epsilon)
      for (let c = 0; c < width; c++) out[at + c] = inp[at + c]! * scale * weight[c]!
      rstd[row] = scale
    }
  }
})

/** dinp = rstd * (dnorm - norm * mean(dnorm * norm)) with dnorm = dout * weight, norm = inp * rstd. */
export const rmsNormBackwardInput = defineKernel({
  name: "rms_norm.backward_input",
  signature: "dout[..., width], inp[..., width], weight[width], rstd[...] -> dinp[..., width]",
  flops: ({ rows, dim }) => 7 * rows * dim("width"),
  reference: ([dout, inp, weight, rstd], [dinp], { rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      const scale = rstd[row]!
      let sumWithNorm = 0
      for (let c = 0; c < width; c++) sumWithNorm += dout[at + c]! * weight[c]! * inp[at + c]! * scale
      for (let c = 0; c < width; c++) {
        dinp[at + c] = scale * (dout[at + c]! * weight[c]! - (inp[at + c]! * scale * sumWithNorm) / width)
      }
    }
  }
})

/** dweight = sum over rows of dout * inp * rstd. */
export const rmsNormBackwardWeight = defineKernel({
  name: "rms_norm.backward_weight",
  signature: "dout[..., width], inp[..., width], rstd[...], dweight[width]?accumulate -> dweight[width]",
  attributes: { accumulate: flag(false) },
  flops: ({ rows, dim }) => 3 * rows * dim("width"),
  reference: ([dout, inp, rstd, before], [dweight], { rows, dim, a }) => {
    const width = dim("width")
    for (let c = 0; c < width; c++) {
      let sum = a.accumulate ? before[c]! : 0
      for (let row = 0; row < rows; row++) sum += dout[row * width + c]! * inp[row * width + c]! * rstd[row]!
      dweight[c] = sum
    }
  }
})
