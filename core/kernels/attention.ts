// Scaled dot-product attention with grouped queries: query head h reads key/value head floor(h / (heads / kvHeads)).
// As flash attention, it keeps no probabilities: the forward pass leaves each row's log-sum-exp for the backward pass
// (llm.c keeps the whole matrix; the order of arguments is otherwise its own).
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, flag, number, type Call } from "./kernel.ts"
import type { Sizes } from "./measure.ts"

const attributes = {
  heads: number(),
  kvHeads: number(),
  headWidth: number(),
  /** One operand [batch, time, (heads + 2 kvHeads) * headWidth] holds q, k and v of a token side by side (GPT-2's c_attn). */
  packed: flag(false),
  /** Query t of `time` sees the first context - time + t + 1 keys: all of them at t = time - 1. */
  causal: flag(true)
}

type AttentionCall = Call<typeof attributes>

const extents = ({ heads, kvHeads, headWidth }: AttentionCall["a"]) => {
  if (!(kvHeads > 0) || heads % kvHeads !== 0) {
    throw new RangeError(`attention: ${heads} heads cannot share ${kvHeads} key/value heads`)
  }
  return { heads, q: heads * headWidth, kv: kvHeads * headWidth, qkv: (heads + 2 * kvHeads) * headWidth }
}

const operands =
  "qkv[batch, time, qkv]?packed, q[batch, time, q]?!packed, k[batch, context, kv]?!packed, v[batch, context, kv]?!packed"

/** Where one operand of attention lies in its array: element (token, head, i) at start + token * stride + head * headWidth + i. */
interface View {
  readonly data: TensorData | Float64Array
  readonly start: number
  readonly stride: number
}

interface Layout {
  readonly batch: number
  readonly time: number
  readonly context: number
  readonly width: number
  readonly kvWidth: number
}

const layoutOf = ({ a, dim }: AttentionCall): Layout => {
  const [batch, time] = [dim("batch"), dim("time")]
  const context = a.packed ? time : dim("context")
  if (a.causal && context < time) {
    throw new RangeError(`attention: causal attention of ${time} queries over only ${context} keys`)
  }
  return { batch, time, context, width: a.heads * a.headWidth, kvWidth: a.kvHeads * a.headWidth }
}

/** q, k and v in three arrays, or side by side in one. */
const views = (
  arrays: ReadonlyArray<TensorData | Float64Array>,
  packed: boolean,
  { width, kvWidth }: Layout
): readonly [View, View, View] => {
  const data = arrays[0]!
  if (!packed) {
    return [
      { data, start: 0, stride: width },
      { data: arrays[1]!, start: 0, stride: kvWidth },
      { data: arrays[2]!, start: 0, stride: kvWidth }
    ]
  }
  const stride = width + 2 * kvWidth
  return [
    { data, start: 0, stride },
    { data, start: width, stride },
    { data, start: width + kvWidth, stride }
  ]
}

const dot = (one: TensorData, at: number, other: TensorData, otherAt: number, length: number): number => {
  let sum = 0
  for (let i = 0; i < length; i++) sum += one[at + i]! * other[otherAt + i]!
  return sum
}

/** (query, key) pairs that attend to each other, over the whole batch and all heads. */
const pairs = (call: AttentionCall): number => {
  const { batch, time, context } = layoutOf(call)
  const perHead = call.a.causal ? time * context - (time * (time - 1)) / 2 : time * context
  return batch * call.a.heads * perHead
}

const attentionSizes = ({ a: { heads, kvHeads, headWidth }, dim }: AttentionCall): Sizes => ({
  batch: dim("batch"),
  tokens: dim("time"),
  heads,
  kvHeads,
  headWidth
})

/**
 * out = softmax(q k^T / sqrt(headWidth)) v per head; lse[b, h, t] = log of the row's sum of exponentials.
 * FLOPs: two products, 4 * headWidth per pair that the mask allows; the softmax is not counted.
 */
export const attentionForward = defineKernel({
  name: "attention.forward",
  signature: `${operands} -> out[batch, time, q], lse[batch, heads, time]`,
  attributes,
  extents,
  outputDtypes: [undefined, "float32"],
  flops: (call) => 4 * call.a.headWidth * pairs(call),
  measure: "prefill_attention",
  sizes: attentionSizes,
  reference: (inputs, [out, lse], call) => {
    const { heads, kvHeads, headWidth, packed, causal } = call.a
    const layout = layoutOf(call)
    const { batch, time, context, width } = layout
    const [q, k, v] = views(inputs, packed, layout)
    const scale = 1 / Math.sqrt(headWidth)
    const weights = new Float64Array(context)
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < heads; h++) {
        const kvHead = Math.floor(h / (heads / kvHeads)) * headWidth
        const kAt = k.start + b * context * k.stride + kvHead
        const vAt = v.start + b * context * v.stride + kvHead
        for (let t = 0; t < time; t++) {
          const visible = causal ? context - time + t + 1 : context
          const qAt = q.start + (b * time + t) * q.stride + h * headWidth
          let max = -Infinity
          for (let s = 0; s < visible; s++) {
            weights[s] = scale * dot(q.data, qAt, k.data, kAt + s * k.stride, headWidth)
            max = Math.max(max, weights[s]!)
          }
          let sum = 0
          for (let s = 0; s < visible; s++) {
            weights[s] = Math.exp(weights[s]! - max)
            sum += weights[s]!
          }
          const outAt = (b * time + t) * width + h * headWidth
          for (let i = 0; i < headWidth; i++) {
            let mixed = 0
            for (let s = 0; s < visible; s++) mixed += weights[s]! * v.data[vAt + s * v.stride + i]!
            out[outAt + i] = mixed / sum
          }
          lse[(b * heads + h) * time + t] = max + Math.log(sum)
        }
      }
    }
  }
})

/**
 * Gradients of q, k and v. FLOPs: five products, 10 * headWidth per pair (2.5 times the forward pass, as PyTorch's
 * FlopCounterMode has it): the probabilities are computed again from `lse`, because nobody kept them.
 */
export const attentionBackward = defineKernel({
  name: "attention.backward",
  signature:
    `dout[batch, time, q], ${operands}, out[batch, time, q], lse[batch, heads, time]` +
    " -> dqkv[batch, time, qkv]?packed, dq[batch, time, q]?!packed, dk[batch, context, kv]?!packed, dv[batch, context, kv]?!packed",
  attributes,
  extents,
  flops: (call) => 10 * call.a.headWidth * pairs(call),
  measure: "prefill_attention",
  sizes: attentionSizes,
  reference: (inputs, outputs, call) => {
    const { heads, kvHeads, headWidth, packed, causal } = call.a
    const layout = layoutOf(call)
    const { batch, time, context, width } = layout
    const dout = inputs[0]
    const [q, k, v] = views(inputs.slice(1), packed, layout)
    const [out, lse] = [inputs[packed ? 2 : 4], inputs[packed ? 3 : 5]!]
    const sums = (packed ? [outputs[0]] : [outputs[0], outputs[1], outputs[2]]).map(
      ({ length }) => new Float64Array(length)
    )
    const [dq, dk, dv] = views(sums, packed, layout)
    const scale = 1 / Math.sqrt(headWidth)
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < heads; h++) {
        const kvHead = Math.floor(h / (heads / kvHeads)) * headWidth
        for (let t = 0; t < time; t++) {
          const visible = causal ? context - time + t + 1 : context
          const qAt = (b * time + t) * q.stride + h * headWidth
          const outAt = (b * time + t) * width + h * headWidth
          const logSum = lse[(b * heads + h) * time + t]!
          const mean = dot(dout, outAt, out, outAt, headWidth)
          for (let s = 0; s < visible; s++) {
            const kAt = (b * context + s) * k.stride + kvHead
            const vAt = (b * context + s) * v.stride + kvHead
            const score = scale * dot(q.data, q.start + qAt, k.data, k.start + kAt, headWidth)
            const weight = Math.exp(score - logSum)
            const dweight = dot(dout, outAt, v.data, v.start + vAt, headWidth)
            const dscore = scale * weight * (dweight - mean)
            for (let i = 0; i < headWidth; i++) {
              dq.data[dq.start + qAt + i]! += dscore * k.data[k.start + kAt + i]!
              dk.data[dk.start + kAt + i]! += dscore * q.data[q.start + qAt + i]!
              dv.data[dv.start + vAt + i]! += weight * dout[outAt + i]!
            }
          }
        }
      }
    }
    for (const [index, sum] of sums.entries()) outputs[index]!.set(sum)
  }
})
