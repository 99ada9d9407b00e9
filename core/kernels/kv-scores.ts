// How much each token of a prompt is attended to: what compression of the key/value cache decides by. Scores are float32,
// per key/value head; the heads of a group (GQA) share a cache and so share a score. Which tokens are kept for a score is
// the business of kv-select.ts.
import { parseIntegers } from "./integer-list.ts"
import { defineKernel, flag, number, text, type Call } from "./kernel.ts"

const windowAttributes = {
  heads: number(),
  kvHeads: number(),
  headWidth: number(),
  /** Queries that look: the last so many of the prompt. */
  window: number(),
  /** Probabilities, averaged; or the bare products of query and key, unmasked and summed (ChunkKV's Algorithm 1). */
  softmax: flag(true)
}

const windowPairs = ({ a, dim }: Call<typeof windowAttributes>): number => a.heads * a.window * dim("time")

/**
 * scores[g, s]: what the last `window` queries make of token s in key/value head g. With `softmax`: causal attention
 * probabilities, the mean over those queries and over the group's query heads (SnapKV's observation window; over all
 * queries it is H2O's accumulated attention but for the factor). Without: q . k, summed over both.
 *
 * `lse`: what attention has left of the same queries and keys, the logarithm of each query's sum of exponentials (scaled by
 * 1 / sqrt(headWidth), causal). Probabilities are then exp(score - lse), and keys are read once instead of twice. It has no
 * effect without `softmax`.
 */
export const kvWindowScores = defineKernel({
  name: "kv.window_scores",
  signature: "q[1, time, q], k[1, time, kv], lse[1, heads, time]? -> scores[kvHeads, time]",
  attributes: windowAttributes,
  inputDtypes: [undefined, undefined, "float32"],
  outputDtypes: ["float32"],
  extents: ({ heads, kvHeads, headWidth }) => {
    if (!(kvHeads > 0) || heads % kvHeads !== 0)
      throw new RangeError(`kv.window_scores: ${heads} heads cannot share ${kvHeads} key/value heads`)
    return { q: heads * headWidth, kv: kvHeads * headWidth, heads, kvHeads }
  },
  // products, and for probabilities maximum, difference, exponential, sum and division; of these `lse` leaves two
  flops: (call) =>
    windowPairs(call) * (2 * call.a.headWidth + (call.a.softmax ? (call.shapes.length > 2 ? 2 : 5) : 0)),
  // of the queries, and of what is known of their sums, only the window's
  readBytes: ({ a, dim, shapes }, [q, k, lse]) =>
    k.sizeBytes +
    ((q.sizeBytes + (shapes.length > 2 ? lse.sizeBytes : 0)) * a.window) / Math.max(1, dim("time")),
  reference: ([q, k, ...rest], [scores], { a, dim, shapes }) => {
    const { heads, kvHeads, headWidth, window, softmax } = a
    const time = dim("time")
    const lse = shapes.length > 2 ? rest[0] : undefined
    if (!(window >= 1 && window <= time))
      throw new RangeError(`kv.window_scores: a window of ${window} in a prompt of ${time}`)
    const group = heads / kvHeads
    const totals = new Float64Array(kvHeads * time)
    const row = new Float64Array(time)
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor(h / group)
      for (let t = time - window; t < time; t++) {
        for (let s = 0; s < time; s++) {
          let dot = 0
          for (let i = 0; i < headWidth; i++)
            dot += q[(t * heads + h) * headWidth + i]! * k[(s * kvHeads + kvHead) * headWidth + i]!
          row[s] = dot
        }
        if (softmax) causalSoftmax(row, t + 1, 1 / Math.sqrt(headWidth), lse?.[h * time + t])
        for (let s = 0; s < time; s++) totals[kvHead * time + s]! += row[s]!
      }
    }
    const over = softmax ? window * group : 1
    for (let i = 0; i < totals.length; i++) scores[i] = totals[i]! / over
  }
})

/** Softmax over the first `visible` entries, after scaling; zero beyond. `lse`: the logarithm of the exponentials' sum, if known. */
const causalSoftmax = (row: Float64Array, visible: number, scale: number, lse?: number): void => {
  if (lse !== undefined) {
    for (let s = 0; s < row.length; s++) row[s] = s < visible ? Math.exp(scale * row[s]! - lse) : 0
    return
  }
  let max = -Infinity
  for (let s = 0; s < visible; s++) max = Math.max(max, scale * row[s]!)
  let total = 0
  for (let s = 0; s < visible; s++) {
    row[s] = Math.exp(scale * row[s]! - max)
    total += row[s]!
  }
  for (let s = 0; s < row.length; s++) row[s] = s < visible ? row[s]! / total : 0
}

/**
 * Scores of the tokens before the last `window` smoothed by a pool of odd width `kernel`, stride 1: "avg" counts the zeros
 * beyond both ends, "max" does not. The window's own tokens get the largest score of all plus 1, so that they are kept
 * first (kvpress's SnapKV).
 */
export const kvPoolScores = defineKernel({
  name: "kv.pool_scores",
  signature: "scores[lists, time] -> pooled[lists, time]",
  attributes: { window: number(), kernel: number(1), mode: text("avg") },
  outputDtypes: ["float32"],
  flops: ({ a, dim }) => dim("lists") * dim("time") * a.kernel,
  reference: ([scores], [pooled], { a, dim }) => {
    const [lists, time] = [dim("lists"), dim("time")]
    const { window, kernel, mode } = a
    if (mode !== "avg" && mode !== "max")
      throw new RangeError(`kv.pool_scores: mode is "${mode}"; expected "avg" or "max"`)
    if (!(kernel >= 1) || kernel % 2 === 0 || window > time)
      throw new RangeError(`kv.pool_scores: kernel ${kernel} and window ${window} over ${time} tokens`)
    const prefix = time - window
    const reach = (kernel - 1) / 2
    let largest = prefix === 0 ? 0 : -Infinity
    for (let list = 0; list < lists; list++) {
      for (let t = 0; t < prefix; t++) {
        let [total, max] = [0, -Infinity]
        for (let s = Math.max(0, t - reach); s <= Math.min(prefix - 1, t + reach); s++) {
          const score = scores[list * time + s]!
          total += score
          max = Math.max(max, score)
        }
        // As it is stored, so that the largest is the largest of what is read later.
        const value = Math.fround(mode === "avg" ? total / kernel : max)
        pooled[list * time + t] = value
        largest = Math.max(largest, value)
      }
    }
    for (let list = 0; list < lists; list++)
      for (let t = prefix; t < time; t++) pooled[list * time + t] = largest + 1
  }
})

/** Per chunk of `chunk` tokens (the last may be short): the sum over lists, and the "sum" or "mean" over its tokens. */
export const kvChunkScores = defineKernel({
  name: "kv.chunk_scores",
  signature: "scores[lists, time] -> chunks[time / chunk, rounded up]",
  attributes: { chunk: number(), reduce: text("sum") },
  outputDtypes: ["float32"],
  shapes: ([scores, ...others], { chunk }) => {
    if (scores?.length !== 2 || others.length > 0 || !(chunk >= 1))
      throw new RangeError(`kv.chunk_scores: expected scores[lists, time] and a chunk of at least 1`)
    return [[Math.ceil(scores[1]! / chunk)]]
  },
  flops: (_, [scores]) => scores.elements,
  reference: ([scores], [chunks], { a, shapes }) => {
    const [lists, time] = [shapes[0]![0]!, shapes[0]![1]!]
    if (a.reduce !== "sum" && a.reduce !== "mean")
      throw new RangeError(`kv.chunk_scores: reduce is "${a.reduce}"; expected "sum" or "mean"`)
    for (let c = 0; c * a.chunk < time; c++) {
      const end = Math.min(time, (c + 1) * a.chunk)
      const total = segmentSum([scores, lists, time], c * a.chunk, end)
      chunks[c] = a.reduce === "sum" ? total : total / (end - c * a.chunk)
    }
  }
})

/** Per shot (example of a prompt, from one start to the next): the sum over lists, the mean over its tokens. */
export const kvShotScores = defineKernel({
  name: "kv.shot_scores",
  signature: "scores[lists, time] -> shots[number of starts]",
  attributes: {
    /** "0,120,260": where each shot begins; the first at 0. */
    starts: text()
  },
  outputDtypes: ["float32"],
  shapes: ([scores, ...others], { starts }) => {
    if (scores?.length !== 2 || others.length > 0)
      throw new RangeError("kv.shot_scores: expected scores[lists, time]")
    return [[parseStarts("kv.shot_scores", starts, scores[1]!).length]]
  },
  flops: (_, [scores]) => scores.elements,
  reference: ([scores], [shots], { a, shapes }) => {
    const [lists, time] = [shapes[0]![0]!, shapes[0]![1]!]
    const starts = parseStarts("kv.shot_scores", a.starts, time)
    for (const [index, start] of starts.entries()) {
      const end = starts[index + 1] ?? time
      shots[index] = segmentSum([scores, lists, time], start, end) / (end - start)
    }
  }
})

const segmentSum = (
  [scores, lists, time]: readonly [ArrayLike<number>, number, number],
  from: number,
  to: number
): number => {
  let total = 0
  for (let list = 0; list < lists; list++) for (let t = from; t < to; t++) total += scores[list * time + t]!
  return total
}

/** Throws RangeError unless the starts rise from 0 and lie inside the prompt. */
export const parseStarts = (kernel: string, starts: string, time: number): ReadonlyArray<number> => {
  const list = parseIntegers(kernel, "starts", starts)
  if (list[0] !== 0 || list.some((start, i) => start >= time || (i > 0 && start <= list[i - 1]!)))
    throw new RangeError(`${kernel}: starts "${starts}"; expected numbers that rise from 0, below ${time}`)
  return list
}
