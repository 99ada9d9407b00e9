// Mixture of experts without token dropping: gate, permutation of tokens by expert, grouped expert layers, combination.
// An assignment is one (token, choice) pair; `slots[token, choice]` is the row that assignment takes once all assignments
// are sorted by expert (stable: by token, then choice). Rows of one expert are adjacent; `counts` says how many each has.
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, flag, number } from "./kernel.ts"

const gateAttributes = {
  topK: number(),
  /** Divide the chosen probabilities by their sum (Mixtral) or leave them as they are (Switch, GShard top-1). */
  normalize: flag(true)
}

/** probs = softmax(logits), and the weights that the chosen experts have of it. */
const weighByProbability = (
  [logits]: ReadonlyArray<TensorData>,
  [weights, chosen, probs]: ReadonlyArray<TensorData>,
  { topK, normalize }: { readonly topK: number; readonly normalize: boolean },
  rows: number,
  experts: number
): void => {
  const probabilities = new Float64Array(experts)
  for (let row = 0; row < rows; row++) {
    const at = row * experts
    let max = -Infinity
    for (let e = 0; e < experts; e++) max = Math.max(max, logits![at + e]!)
    let sum = 0
    for (let e = 0; e < experts; e++) {
      probabilities[e] = Math.exp(logits![at + e]! - max)
      sum += probabilities[e]!
    }
    for (let e = 0; e < experts; e++) {
      probabilities[e]! /= sum
      probs![at + e] = probabilities[e]!
    }
    let chosenSum = 0
    for (let k = 0; k < topK; k++) chosenSum += probabilities[chosen![row * topK + k]!]!
    const scale = normalize ? chosenSum : 1
    for (let k = 0; k < topK; k++) weights![row * topK + k] = probabilities[chosen![row * topK + k]!]! / scale
  }
}

/**
 * probs = softmax(logits); chosen = the topK most probable experts, most probable first, ties to the lower index;
 * weights = their probabilities. Mixtral's router.
 */
export const topkGateForward = defineKernel({
  name: "topk_gate.forward",
  signature: "logits[..., experts] -> weights[..., topK], chosen[..., topK], probs[..., experts]",
  attributes: gateAttributes,
  outputDtypes: [undefined, "int32"],
  extents: ({ topK }) => ({ topK }),
  taken: (chosen, _, { a, dim }) =>
    Array.from(chosen, (expert, i) => Math.floor(i / a.topK) * dim("experts") + expert),
  settle: (inputs, outputs, { a, rows, dim }) => weighByProbability(inputs, outputs, a, rows, dim("experts")),
  flops: ({ rows, dim }) => rows * dim("experts") * (5 + dim("topK")),
  reference: (inputs, outputs, { a, rows, dim }) => {
    const [[logits], [, chosen]] = [inputs, outputs]
    const experts = dim("experts")
    const { topK } = a
    if (topK > experts) throw new RangeError(`topk_gate.forward: top ${topK} of ${experts} experts`)
    // The choice is made on logits, which are as they are stored, not on probabilities, where distinct logits may tie.
    for (let row = 0; row < rows; row++) {
      const at = row * experts
      for (let k = 0; k < topK; k++) {
        let best = -1
        for (let e = 0; e < experts; e++) {
          if (isAmong(chosen, row * topK, k, e)) continue
          if (best < 0 || logits[at + e]! > logits[at + best]!) best = e
        }
        chosen[row * topK + k] = best
      }
    }
    weighByProbability(inputs, outputs, a, rows, experts)
  }
})

const isAmong = (chosen: TensorData, at: number, count: number, expert: number): boolean => {
  for (let k = 0; k < count; k++) if (chosen[at + k] === expert) return true
  return false
}

/** Gradient of the weights with respect to the logits; the choice itself has none. */
export const topkGateBackward = defineKernel({
  name: "topk_gate.backward",
  signature: "dweights[..., topK], probs[..., experts], chosen[..., topK] -> dlogits[..., experts]",
  attributes: gateAttributes,
  inputDtypes: [undefined, undefined, "int32"],
  extents: ({ topK }) => ({ topK }),
  flops: ({ rows, dim }) => rows * (4 * dim("experts") + 5 * dim("topK")),
  reference: ([dweights, probs, chosen], [dlogits], { a, rows, dim }) => {
    const experts = dim("experts")
    const { topK } = a
    const dprobs = new Float64Array(experts)
    for (let row = 0; row < rows; row++) {
      const at = row * experts
      let scale = 1
      let shared = 0
      if (a.normalize) {
        scale = 0
        for (let k = 0; k < topK; k++) scale += probs[at + chosen[row * topK + k]!]!
        for (let k = 0; k < topK; k++) {
          shared += (dweights[row * topK + k]! * probs[at + chosen[row * topK + k]!]!) / scale
        }
      }
      dprobs.fill(0)
      for (let k = 0; k < topK; k++) {
        dprobs[chosen[row * topK + k]!] = (dweights[row * topK + k]! - shared) / scale
      }
      let mean = 0
      for (let e = 0; e < experts; e++) mean += dprobs[e]! * probs[at + e]!
      for (let e = 0; e < experts; e++) dlogits[at + e] = probs[at + e]! * (dprobs[e]! - mean)
    }
  }
})

/** From each assignment's expert, the row it takes when assignments are sorted by expert, and each expert's count. */
export const moePermutation = defineKernel({
  name: "moe_permutation",
  signature: "chosen[..., topK] -> slots[..., topK], counts[experts]",
  attributes: { experts: number() },
  inputDtypes: ["int32"],
  outputDtypes: ["int32", "int32"],
  extents: ({ experts }) => ({ experts }),
  flops: () => 0,
  reference: ([chosen], [slots, counts], { a }) => {
    counts.fill(0)
    for (let i = 0; i < chosen.length; i++) {
      const expert = chosen[i]!
      if (!(expert >= 0 && expert < a.experts)) {
        throw new RangeError(`moe_permutation: expert ${expert} of ${a.experts}`)
      }
      counts[expert]!++
    }
    const next = new Int32Array(a.experts)
    for (let e = 1; e < a.experts; e++) next[e] = next[e - 1]! + counts[e - 1]!
    for (let i = 0; i < chosen.length; i++) {
      const expert = chosen[i]!
      slots[i] = next[expert]!
      next[expert]!++
    }
  }
})

const topK = { topK: number() }
const topKExtent = (a: { readonly topK: number }) => ({ topK: a.topK })

/** out[slots[token, k]] = inp[token]: every token once per choice, in order of expert. */
export const moeDispatchForward = defineKernel({
  name: "moe_dispatch.forward",
  signature: "inp[..., width], slots[..., topK] -> out[topK*rows, width]",
  attributes: topK,
  inputDtypes: [undefined, "int32"],
  extents: topKExtent,
  flops: () => 0,
  reference: ([inp, slots], [out], { a, rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < a.topK; k++) {
        const to = slots[row * a.topK + k]! * width
        for (let c = 0; c < width; c++) out[to + c] = inp[row * width + c]!
      }
    }
  }
})

/** dinp[token] = sum over its choices of dout[slots[token, k]]. */
export const moeDispatchBackward = defineKernel({
  name: "moe_dispatch.backward",
  signature: "dout[topK*rows, width], slots[..., topK] -> dinp[..., width]",
  attributes: topK,
  inputDtypes: [undefined, "int32"],
  extents: topKExtent,
  flops: ({ rows, dim }) => rows * dim("topK") * dim("width"),
  reference: ([dout, slots], [dinp], { a, rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      for (let c = 0; c < width; c++) {
        let sum = 0
        for (let k = 0; k < a.topK; k++) sum += dout[slots[row * a.topK + k]! * width + c]!
        dinp[row * width + c] = sum
      }
    }
  }
})

/** out[token] = sum over k of weights[token, k] * inp[slots[token, k]]. */
export const moeCombineForward = defineKernel({
  name: "moe_combine.forward",
  signature: "inp[topK*rows, width], weights[..., topK], slots[..., topK] -> out[..., width]",
  attributes: topK,
  inputDtypes: [undefined, undefined, "int32"],
  extents: topKExtent,
  flops: ({ rows, dim }) => 2 * rows * dim("topK") * dim("width"),
  reference: ([inp, weights, slots], [out], { a, rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      for (let c = 0; c < width; c++) {
        let sum = 0
        for (let k = 0; k < a.topK; k++) {
          const assignment = row * a.topK + k
          sum += weights[assignment]! * inp[slots[assignment]! * width + c]!
        }
        out[row * width + c] = sum
      }
    }
  }
})

/** dinp[slots[token, k]] = weights[token, k] * dout[token]. */
export const moeCombineBackwardInput = defineKernel({
  name: "moe_combine.backward_input",
  signature: "dout[..., width], weights[..., topK], slots[..., topK] -> dinp[topK*rows, width]",
  attributes: topK,
  inputDtypes: [undefined, undefined, "int32"],
  extents: topKExtent,
  flops: ({ rows, dim }) => rows * dim("topK") * dim("width"),
  reference: ([dout, weights, slots], [dinp], { a, rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < a.topK; k++) {
        const assignment = row * a.topK + k
        const to = slots[assignment]! * width
        for (let c = 0; c < width; c++) dinp[to + c] = weights[assignment]! * dout[row * width + c]!
      }
    }
  }
})

/** dweights[token, k] = dout[token] . inp[slots[token, k]]: an activation gradient too, for the gate goes on from it. */
export const moeCombineBackwardGate = defineKernel({
  name: "moe_combine.backward_gate",
  signature: "dout[..., width], inp[topK*rows, width], slots[..., topK] -> dweights[..., topK]",
  attributes: topK,
  inputDtypes: [undefined, undefined, "int32"],
  extents: topKExtent,
  flops: ({ rows, dim }) => 2 * rows * dim("topK") * dim("width"),
  reference: ([dout, inp, slots], [dweights], { a, rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < a.topK; k++) {
        const assignment = row * a.topK + k
        const from = slots[assignment]! * width
        let sum = 0
        for (let c = 0; c < width; c++) sum += dout[row * width + c]! * inp[from + c]!
        dweights[assignment] = sum
      }
    }
  }
})

/** Calls `visit(row, expert)` for the rows of each expert; throws RangeError when counts do not add up to all rows. */
const forEachRow = (
  kernel: string,
  counts: TensorData,
  rows: number,
  visit: (row: number, expert: number) => void
): void => {
  const all = Array.from(counts)
  if (all.some((count) => count < 0) || all.reduce((sum, count) => sum + count, 0) !== rows) {
    throw new RangeError(`${kernel}: counts ${all.join(", ")} for ${rows} rows`)
  }
  let row = 0
  for (const [expert, count] of all.entries()) {
    for (const end = row + count; row < end; row++) visit(row, expert)
  }
}

/** out[row] = weight[expert of row] inp[row]. FLOPs 2 * assignments * in * out, whoever gets them. */
export const groupedLinearForward = defineKernel({
  name: "grouped_linear.forward",
  signature: "inp[assignments, in], weight[experts, out, in], counts[experts] -> out[assignments, out]",
  inputDtypes: [undefined, undefined, "int32"],
  flops: ({ dim }) => 2 * dim("assignments") * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ dim }) => ({ m: dim("assignments"), k: dim("in"), n: dim("out") }),
  reference: ([inp, weight, counts], [out], { dim }) => {
    const [width, outWidth] = [dim("in"), dim("out")]
    forEachRow("grouped_linear.forward", counts, dim("assignments"), (row, expert) => {
      for (let o = 0; o < outWidth; o++) {
        const at = (expert * outWidth + o) * width
        let sum = 0
        for (let i = 0; i < width; i++) sum += inp[row * width + i]! * weight[at + i]!
        out[row * outWidth + o] = sum
      }
    })
  }
})

export const groupedLinearBackwardInput = defineKernel({
  name: "grouped_linear.backward_input",
  signature: "dout[assignments, out], weight[experts, out, in], counts[experts] -> dinp[assignments, in]",
  inputDtypes: [undefined, undefined, "int32"],
  flops: ({ dim }) => 2 * dim("assignments") * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ dim }) => ({ m: dim("assignments"), k: dim("out"), n: dim("in") }),
  reference: ([dout, weight, counts], [dinp], { dim }) => {
    const [width, outWidth] = [dim("in"), dim("out")]
    forEachRow("grouped_linear.backward_input", counts, dim("assignments"), (row, expert) => {
      for (let i = 0; i < width; i++) {
        let sum = 0
        for (let o = 0; o < outWidth; o++) {
          sum += dout[row * outWidth + o]! * weight[(expert * outWidth + o) * width + i]!
        }
        dinp[row * width + i] = sum
      }
    })
  }
})

/** An expert without rows gets a gradient of zero (or keeps the gradient so far). */
export const groupedLinearBackwardWeight = defineKernel({
  name: "grouped_linear.backward_weight",
  signature:
    "dout[assignments, out], inp[assignments, in], counts[experts], dweight[experts, out, in]?accumulate" +
    " -> dweight[experts, out, in]",
  attributes: { accumulate: flag(false) },
  inputDtypes: [undefined, undefined, "int32"],
  flops: ({ dim }) => 2 * dim("assignments") * dim("in") * dim("out"),
  measure: "product",
  sizes: ({ dim }) => ({ m: dim("out"), k: dim("assignments"), n: dim("in") }),
  reference: ([dout, inp, counts, before], [dweight], { a, dim }) => {
    const [width, outWidth] = [dim("in"), dim("out")]
    const sum = a.accumulate ? Float64Array.from(before) : new Float64Array(dweight.length)
    forEachRow("grouped_linear.backward_weight", counts, dim("assignments"), (row, expert) => {
      for (let o = 0; o < outWidth; o++) {
        const at = (expert * outWidth + o) * width
        for (let i = 0; i < width; i++) sum[at + i]! += dout[row * outWidth + o]! * inp[row * width + i]!
      }
    })
    dweight.set(sum)
  }
})
