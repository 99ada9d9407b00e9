// Token embedding and learned positions (llm.c's encoder, in two kernels because they are two modules in PyTorch).
import { defineKernel, number, flag } from "./kernel.ts"

/** out[..., c] = weight[tokens[...], c]. A token outside the vocabulary throws RangeError. */
export const embeddingForward = defineKernel({
  name: "embedding.forward",
  signature: "tokens[...], weight[vocabulary, width] -> out[..., width]",
  inputDtypes: ["int32"],
  flops: () => 0,
  // only the rows that are looked up cross memory
  readBytes: ({ rows, dim }, [tokens, weight]) =>
    tokens.sizeBytes + (rows * dim("width") * weight.sizeBytes) / Math.max(1, weight.elements),
  reference: ([tokens, weight], [out], { rows, dim }) => {
    const width = dim("width")
    const vocabulary = dim("vocabulary")
    for (let row = 0; row < rows; row++) {
      const token = tokens[row]!
      if (!(token >= 0 && token < vocabulary)) {
        throw new RangeError(`embedding.forward: token ${token} outside the vocabulary of ${vocabulary}`)
      }
      for (let c = 0; c < width; c++) out[row * width + c] = weight[token * width + c]!
    }
  }
})

/**
 * dweight[token] = sum of dout over the places where the token stands (added to the gradient so far with `accumulate`).
 * Duplicates are summed in order of position.
 */
export const embeddingBackwardWeight = defineKernel({
  name: "embedding.backward_weight",
  signature:
    "dout[..., width], tokens[...], dweight[vocabulary, width]?accumulate -> dweight[vocabulary, width]",
  attributes: { vocabulary: number(), accumulate: flag(false) },
  inputDtypes: [undefined, "int32"],
  extents: ({ vocabulary }) => ({ vocabulary }),
  flops: ({ rows, dim }) => rows * dim("width"),
  reference: ([dout, tokens, before], [dweight], { rows, dim, a }) => {
    const width = dim("width")
    const sum = a.accumulate ? Float64Array.from(before) : new Float64Array(dweight.length)
    for (let row = 0; row < rows; row++) {
      const at = tokens[row]! * width
      for (let c = 0; c < width; c++) sum[at + c]! += dout[row * width + c]!
    }
    dweight.set(sum)
  }
})

/** out[b, t, c] = inp[b, t, c] + weight[offset + t, c]. The gradient with respect to `inp` is `dout` itself. */
export const positionAddForward = defineKernel({
  name: "position_add.forward",
  signature: "inp[batch, time, width], weight[positions, width] -> out[batch, time, width]",
  attributes: { offset: number(0) },
  scalars: ["offset"],
  flops: ({ dim }) => dim("batch") * dim("time") * dim("width"),
  readBytes: ({ dim }, [inp, weight]) =>
    inp.sizeBytes + (dim("time") * dim("width") * weight.sizeBytes) / Math.max(1, weight.elements),
  reference: ([inp, weight], [out], { dim, a }) => {
    const [batch, time, width] = [dim("batch"), dim("time"), dim("width")]
    if (a.offset + time > dim("positions")) {
      throw new RangeError(`position_add.forward: ${a.offset + time} positions of ${dim("positions")}`)
    }
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < time; t++) {
        const row = (b * time + t) * width
        const position = (a.offset + t) * width
        for (let c = 0; c < width; c++) out[row + c] = inp[row + c]! + weight[position + c]!
      }
    }
  }
})

/** dweight[offset + t, c] = sum over b of dout[b, t, c]; positions that were not used get zero. */
export const positionAddBackwardWeight = defineKernel({
  name: "position_add.backward_weight",
  signature: "dout[batch, time, width], dweight[positions, width]?accumulate -> dweight[positions, width]",
  attributes: { positions: number(), offset: number(0), accumulate: flag(false) },
  scalars: ["offset"],
  extents: ({ positions }) => ({ positions }),
  flops: ({ dim }) => dim("batch") * dim("time") * dim("width"),
  reference: ([dout, before], [dweight], { dim, a }) => {
    const [batch, time, width] = [dim("batch"), dim("time"), dim("width")]
    const sum = a.accumulate ? Float64Array.from(before) : new Float64Array(dweight.length)
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < time; t++) {
        const row = (b * time + t) * width
        const position = (a.offset + t) * width
        for (let c = 0; c < width; c++) sum[position + c]! += dout[row + c]!
      }
    }
    dweight.set(sum)
  }
})
