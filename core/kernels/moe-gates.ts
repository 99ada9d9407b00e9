// Gates of FSMoE (arXiv:2501.10714, section 3.1) beside the plain top-k softmax of moe.ts: GShard's noise, the sigmoid gate,
// X-MoE's cosine scores, expert choice and SoftMoE. From logits (or scores) to weights and choices; the linear layer that
// makes the logits is linear.*.
import type { TensorData } from "../machine/tensor.ts"
import { Random } from "../random.ts"
import { defineKernel, number } from "./kernel.ts"

/** Standard normal numbers (mean 0, deviation 1, within +-6): exact in every implementation, see Random.normal. */
export const randomNormal = defineKernel({
  name: "random_normal",
  signature: "-> out[rows, width]",
  attributes: { rows: number(), width: number(), seed: number() },
  scalars: ["seed"],
  shapes: (inputs, { rows, width }) => {
    if (inputs.length > 0) throw new RangeError(`random_normal: ${inputs.length} inputs given, 0 expected`)
    return [[rows, width]]
  },
  // Twelve draws and their sum.
  flops: (_call, _inputs, [out]) => 24 * out.elements,
  reference: (_inputs, [out], { a }) => {
    const random = new Random(a.seed)
    for (let i = 0; i < out.length; i++) out[i] = random.normal()
  }
})

/** log(1 + exp(x)) without overflow. */
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))

/** GShard: out = clean + noise * softplus(spread); top-k softmax of it is the gate. */
export const noisyLogitsForward = defineKernel({
  name: "noisy_logits.forward",
  signature: "clean[..., experts], spread[..., experts], noise[..., experts] -> out[..., experts]",
  flops: ({ rows, dim }) => 6 * rows * dim("experts"),
  reference: ([clean, spread, noise], [out]) => {
    for (let i = 0; i < out.length; i++) out[i] = clean[i]! + noise[i]! * softplus(spread[i]!)
  }
})

/** Gradient of the spread; that of the clean logits is `dout` itself. */
export const noisyLogitsBackward = defineKernel({
  name: "noisy_logits.backward",
  signature: "dout[..., experts], spread[..., experts], noise[..., experts] -> dspread[..., experts]",
  flops: ({ rows, dim }) => 5 * rows * dim("experts"),
  reference: ([dout, spread, noise], [dspread]) => {
    for (let i = 0; i < dspread.length; i++) dspread[i] = dout[i]! * noise[i]! * sigmoid(spread[i]!)
  }
})

const topK = { topK: number() }
const topKExtent = (a: { readonly topK: number }) => ({ topK: a.topK })

/** weights = sigmoid of the chosen logits. */
const weighBySigmoid = (
  [logits]: ReadonlyArray<TensorData>,
  [weights, chosen]: ReadonlyArray<TensorData>,
  topK: number,
  experts: number
): void => {
  for (const [i, expert] of chosen!.entries())
    weights![i] = sigmoid(logits![Math.floor(i / topK) * experts + expert]!)
}

/** The topK largest logits, largest first, ties to the lower index; weights = sigmoid of them (BASE, StableMoE). */
export const sigmoidGateForward = defineKernel({
  name: "sigmoid_gate.forward",
  signature: "logits[..., experts] -> weights[..., topK], chosen[..., topK]",
  attributes: topK,
  outputDtypes: [undefined, "int32"],
  extents: topKExtent,
  taken: (chosen, _, { a, dim }) =>
    Array.from(chosen, (expert, i) => Math.floor(i / a.topK) * dim("experts") + expert),
  settle: (inputs, outputs, { a, dim }) => weighBySigmoid(inputs, outputs, a.topK, dim("experts")),
  flops: ({ rows, dim }) => rows * (dim("experts") * dim("topK") + 4 * dim("topK")),
  reference: (inputs, outputs, { a, rows, dim }) => {
    const [[logits], [, chosen]] = [inputs, outputs]
    const experts = dim("experts")
    if (a.topK > experts) throw new RangeError(`sigmoid_gate.forward: top ${a.topK} of ${experts} experts`)
    for (let row = 0; row < rows; row++) {
      const order = Array.from({ length: experts }, (_, e) => e).toSorted(
        (x, y) => logits[row * experts + y]! - logits[row * experts + x]! || x - y
      )
      for (let k = 0; k < a.topK; k++) chosen[row * a.topK + k] = order[k]!
    }
    weighBySigmoid(inputs, outputs, a.topK, experts)
  }
})

export const sigmoidGateBackward = defineKernel({
  name: "sigmoid_gate.backward",
  signature:
    "dweights[..., topK], weights[..., topK], chosen[..., topK], logits[..., experts] -> dlogits[..., experts]",
  attributes: topK,
  inputDtypes: [undefined, undefined, "int32"],
  extents: topKExtent,
  flops: ({ rows, dim }) => 3 * rows * dim("topK"),
  // The logits say how many experts there are; their values are not needed.
  readBytes: (_call, [dweights, weights, chosen]) =>
    dweights.sizeBytes + weights.sizeBytes + chosen.sizeBytes,
  reference: ([dweights, weights, chosen], [dlogits], { a, rows, dim }) => {
    const experts = dim("experts")
    dlogits.fill(0)
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < a.topK; k++) {
        const at = row * a.topK + k
        dlogits[row * experts + chosen[at]!] = dweights[at]! * weights[at]! * (1 - weights[at]!)
      }
    }
  }
})

const cosineAttributes = {
  /** Scores are cosines divided by it. */
  temperature: number(1)
}

const norm = (data: ArrayLike<number>, at: number, width: number): number => {
  let sum = 0
  for (let c = 0; c < width; c++) sum += data[at + c]! ** 2
  // A vector of zeros has no direction: its cosines are 0.
  return Math.sqrt(sum) || 1
}

/** X-MoE: scores[row, e] = cos(inp[row], weight[e]) / temperature, inp already projected to a low rank. */
export const cosineScoresForward = defineKernel({
  name: "cosine_scores.forward",
  signature: "inp[..., width], weight[experts, width] -> scores[..., experts]",
  attributes: cosineAttributes,
  flops: ({ rows, dim }) => 2 * rows * dim("width") * (dim("experts") + 1),
  reference: ([inp, weight], [scores], { a, rows, dim }) => {
    const [width, experts] = [dim("width"), dim("experts")]
    for (let row = 0; row < rows; row++) {
      const size = norm(inp, row * width, width)
      for (let e = 0; e < experts; e++) {
        let dot = 0
        for (let c = 0; c < width; c++) dot += inp[row * width + c]! * weight[e * width + c]!
        scores[row * experts + e] = dot / (size * norm(weight, e * width, width) * a.temperature)
      }
    }
  }
})

/** d cos(x, w) / dx = (w/|w| - cos x/|x|) / |x|, for x the input here and the weight below. */
export const cosineScoresBackwardInput = defineKernel({
  name: "cosine_scores.backward_input",
  signature:
    "dscores[..., experts], inp[..., width], weight[experts, width], scores[..., experts] -> dinp[..., width]",
  attributes: cosineAttributes,
  flops: ({ rows, dim }) => 4 * rows * dim("width") * dim("experts"),
  reference: ([dscores, inp, weight, scores], [dinp], { a, rows, dim }) => {
    const [width, experts] = [dim("width"), dim("experts")]
    for (let row = 0; row < rows; row++) {
      const size = norm(inp, row * width, width)
      const sum = new Float64Array(width)
      for (let e = 0; e < experts; e++) {
        const other = norm(weight, e * width, width)
        const cosine = scores[row * experts + e]! * a.temperature
        const gradient = dscores[row * experts + e]! / (size * a.temperature)
        for (let c = 0; c < width; c++) {
          sum[c]! += gradient * (weight[e * width + c]! / other - (cosine * inp[row * width + c]!) / size)
        }
      }
      dinp.set(sum, row * width)
    }
  }
})

export const cosineScoresBackwardWeight = defineKernel({
  name: "cosine_scores.backward_weight",
  signature:
    "dscores[..., experts], inp[..., width], weight[experts, width], scores[..., experts] -> dweight[experts, width]",
  attributes: cosineAttributes,
  flops: ({ rows, dim }) => 4 * rows * dim("width") * dim("experts"),
  reference: ([dscores, inp, weight, scores], [dweight], { a, rows, dim }) => {
    const [width, experts] = [dim("width"), dim("experts")]
    const sum = new Float64Array(experts * width)
    for (let row = 0; row < rows; row++) {
      const size = norm(inp, row * width, width)
      for (let e = 0; e < experts; e++) {
        const other = norm(weight, e * width, width)
        const cosine = scores[row * experts + e]! * a.temperature
        const gradient = dscores[row * experts + e]! / (other * a.temperature)
        for (let c = 0; c < width; c++) {
          sum[e * width + c]! +=
            gradient * (inp[row * width + c]! / size - (cosine * weight[e * width + c]!) / other)
        }
      }
    }
    dweight.set(sum)
  }
})

const capacity = { capacity: number() }
const capacityExtent = (a: { readonly capacity: number }) => ({ capacity: a.capacity })

/** weights = softmax over the logits of the tokens that an expert has taken. */
const weighTaken = (
  [logits]: ReadonlyArray<TensorData>,
  [weights, chosen]: ReadonlyArray<TensorData>,
  count: number,
  experts: number
): void => {
  for (let e = 0; e < experts; e++) {
    const order = chosen!.subarray(e * count, (e + 1) * count)
    const logit = (token: number): number => logits![token * experts + e]!
    let largest = -Infinity
    for (const token of order) largest = Math.max(largest, logit(token))
    let sum = 0
    for (const token of order) sum += Math.exp(logit(token) - largest)
    for (const [c, token] of order.entries()) weights![e * count + c] = Math.exp(logit(token) - largest) / sum
  }
}

/**
 * Expert choice: each expert takes the `capacity` tokens with its largest logits, largest first, ties to the lower token;
 * weights = softmax over the taken (FSMoE's G = Softmax(KeepTopK((I Wg)^T, k))). A token may be taken by any number.
 */
export const expertChoiceForward = defineKernel({
  name: "expert_choice.forward",
  signature: "logits[tokens, experts] -> weights[experts, capacity], chosen[experts, capacity]",
  attributes: capacity,
  outputDtypes: [undefined, "int32"],
  extents: capacityExtent,
  taken: (chosen, _, { a, dim }) =>
    Array.from(chosen, (token, i) => token * dim("experts") + Math.floor(i / a.capacity)),
  settle: (inputs, outputs, { a, dim }) => weighTaken(inputs, outputs, a.capacity, dim("experts")),
  flops: ({ dim }) => dim("experts") * (dim("tokens") + 4 * dim("capacity")),
  reference: (inputs, outputs, { a, dim }) => {
    const [[logits], [, chosen]] = [inputs, outputs]
    const [tokens, experts] = [dim("tokens"), dim("experts")]
    if (a.capacity > tokens) {
      throw new RangeError(`expert_choice.forward: ${a.capacity} of only ${tokens} tokens`)
    }
    for (let e = 0; e < experts; e++) {
      const logit = (token: number): number => logits[token * experts + e]!
      const order = Array.from({ length: tokens }, (_, token) => token)
        .toSorted((x, y) => logit(y) - logit(x) || x - y)
        .slice(0, a.capacity)
      chosen.set(order, e * a.capacity)
    }
    weighTaken(inputs, outputs, a.capacity, experts)
  }
})

export const expertChoiceBackward = defineKernel({
  name: "expert_choice.backward",
  signature:
    "dweights[experts, capacity], weights[experts, capacity], chosen[experts, capacity], logits[tokens, experts]" +
    " -> dlogits[tokens, experts]",
  attributes: capacity,
  inputDtypes: [undefined, undefined, "int32"],
  extents: capacityExtent,
  flops: ({ dim }) => 4 * dim("experts") * dim("capacity"),
  readBytes: (_call, [dweights, weights, chosen]) =>
    dweights.sizeBytes + weights.sizeBytes + chosen.sizeBytes,
  reference: ([dweights, weights, chosen], [dlogits], { a, dim }) => {
    const experts = dim("experts")
    dlogits.fill(0)
    for (let e = 0; e < experts; e++) {
      const at = e * a.capacity
      let mean = 0
      for (let c = 0; c < a.capacity; c++) mean += dweights[at + c]! * weights[at + c]!
      for (let c = 0; c < a.capacity; c++) {
        dlogits[chosen[at + c]! * experts + e] = weights[at + c]! * (dweights[at + c]! - mean)
      }
    }
  }
})

/** Softmax over one axis of [tokens, slots]; `stride` is from one element of a line to the next. */
const softmaxLine = (
  logits: ArrayLike<number>,
  out: { [i: number]: number },
  start: number,
  stride: number,
  count: number
): void => {
  let largest = -Infinity
  for (let i = 0; i < count; i++) largest = Math.max(largest, logits[start + i * stride]!)
  let sum = 0
  for (let i = 0; i < count; i++) sum += Math.exp(logits[start + i * stride]! - largest)
  for (let i = 0; i < count; i++) {
    out[start + i * stride] = Math.exp(logits[start + i * stride]! - largest) / sum
  }
}

/** SoftMoE (arXiv:2308.00951): dispatch = softmax over tokens of each slot, combine = softmax over slots of each token. */
export const softGateForward = defineKernel({
  name: "soft_gate.forward",
  signature: "logits[tokens, slots] -> dispatch[tokens, slots], combine[tokens, slots]",
  flops: ({ dim }) => 8 * dim("tokens") * dim("slots"),
  reference: ([logits], [dispatch, combine], { dim }) => {
    const [tokens, slots] = [dim("tokens"), dim("slots")]
    for (let slot = 0; slot < slots; slot++) softmaxLine(logits, dispatch, slot, slots, tokens)
    for (let token = 0; token < tokens; token++) softmaxLine(logits, combine, token * slots, 1, slots)
  }
})

export const softGateBackward = defineKernel({
  name: "soft_gate.backward",
  signature:
    "ddispatch[tokens, slots], dcombine[tokens, slots], dispatch[tokens, slots], combine[tokens, slots]" +
    " -> dlogits[tokens, slots]",
  flops: ({ dim }) => 8 * dim("tokens") * dim("slots"),
  reference: ([ddispatch, dcombine, dispatch, combine], [dlogits], { dim }) => {
    const [tokens, slots] = [dim("tokens"), dim("slots")]
    const overTokens = new Float64Array(slots)
    const overSlots = new Float64Array(tokens)
    for (let i = 0; i < tokens * slots; i++) {
      overTokens[i % slots]! += ddispatch[i]! * dispatch[i]!
      overSlots[Math.floor(i / slots)]! += dcombine[i]! * combine[i]!
    }
    for (let i = 0; i < tokens * slots; i++) {
      dlogits[i] =
        dispatch[i]! * (ddispatch[i]! - overTokens[i % slots]!) +
        combine[i]! * (dcombine[i]! - overSlots[Math.floor(i / slots)]!)
    }
  }
})
