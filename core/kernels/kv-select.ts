// Which tokens of a prompt stay in the key/value cache, from their scores. Lists are in ascending order of position, ties go
// to the lower index, and -1 ends a list that is shorter than its room. Knows nothing of where scores come from.
import { defineKernel, number, text } from "./kernel.ts"
import { parseStarts } from "./kv-scores.ts"

/** Indices of the `count` largest, ties to the lower index, in ascending order. */
const largest = (scores: ArrayLike<number>, count: number): ReadonlyArray<number> =>
  ranked(scores)
    .slice(0, count)
    .toSorted((a, b) => a - b)

/** All indices, largest score first, ties to the lower index. */
const ranked = (scores: ArrayLike<number>): ReadonlyArray<number> =>
  Array.from({ length: scores.length }, (_, index) => index).toSorted(
    (a, b) => scores[b]! - scores[a]! || a - b
  )

/** Comparisons of a sort, which is how the references and most libraries choose. */
const sortFlops = (elements: number): number => elements * Math.max(1, Math.ceil(Math.log2(elements)))

const checkCount = (kernel: string, count: number, of: number): void => {
  if (!(count >= 1 && count <= of)) throw new RangeError(`${kernel}: ${count} of ${of}`)
}

/** kept[list] = the `count` tokens with the largest scores of that list. */
export const kvTopTokens = defineKernel({
  name: "kv.top_tokens",
  signature: "scores[lists, time] -> kept[lists, count]",
  attributes: { count: number() },
  outputDtypes: ["int32"],
  extents: ({ count }) => ({ count }),
  taken: (kept, _, { a, dim }) =>
    Array.from(kept, (token, i) => Math.floor(i / a.count) * dim("time") + token),
  flops: ({ dim }) => dim("lists") * sortFlops(dim("time")),
  reference: ([scores], [kept], { a, dim }) => {
    const time = dim("time")
    checkCount("kv.top_tokens", a.count, time)
    for (let list = 0; list < dim("lists"); list++)
      kept.set(largest(scores.subarray(list * time, (list + 1) * time), a.count), list * a.count)
  }
})

/** kept = the first `sinks` tokens and as many of the last as make `count` (StreamingLLM): no scores needed. */
export const kvSinkTokens = defineKernel({
  name: "kv.sink_tokens",
  signature: "-> kept[1, count]",
  attributes: { time: number(), sinks: number(4), count: number() },
  outputDtypes: ["int32"],
  extents: ({ count }) => ({ count }),
  flops: () => 0,
  reference: (_, [kept], { a }) => {
    checkCount("kv.sink_tokens", a.count, a.time)
    for (let i = 0; i < a.count; i++) kept[i] = i < a.sinks ? i : a.time - a.count + i
  }
})

const padded = (kept: { fill(value: number): unknown; set(values: ArrayLike<number>): void }) => ({
  write: (tokens: ReadonlyArray<number>) => {
    kept.fill(-1)
    kept.set(tokens)
  }
})

/**
 * The `count` chunks with the largest scores, in order of position; of their tokens the first `limit`; and the last `window`
 * tokens of the prompt, no token twice.
 */
export const kvTopChunks = defineKernel({
  name: "kv.top_chunks",
  signature: "chunks[time / chunk, rounded up] -> kept[1, at most limit + window]",
  attributes: { time: number(), chunk: number(), count: number(), limit: number(), window: number(0) },
  outputDtypes: ["int32"],
  shapes: ([chunks, ...others], a) => {
    if (chunks?.length !== 1 || others.length > 0 || chunks[0] !== Math.ceil(a.time / a.chunk))
      throw new RangeError(`kv.top_chunks: expected [${Math.ceil(a.time / a.chunk)}] chunks`)
    return [[1, Math.min(a.time, Math.min(a.limit, a.count * a.chunk) + a.window)]]
  },
  taken: (kept, scores, { a }) => {
    const before = kept.filter((token) => token >= 0 && token < a.time - a.window)
    const seen = new Set(Array.from(before, (token) => Math.floor(token / a.chunk)))
    const last = Math.max(-1, ...seen)
    // Of a chunk in the window, and of one behind the last token that had room, nothing tells whether it was among them.
    const unseen = ranked(scores).filter(
      (c) => !seen.has(c) && (c * a.chunk >= a.time - a.window || (c > last && before.length >= a.limit))
    )
    return [...seen, ...unseen.slice(0, Math.max(0, a.count - seen.size))]
  },
  flops: (_, [chunks]) => sortFlops(chunks.elements),
  reference: ([chunks], [kept], { a }) => {
    checkCount("kv.top_chunks", a.count, chunks.length)
    const tokens: Array<number> = []
    for (const c of largest(chunks, a.count)) {
      for (let t = c * a.chunk; t < Math.min(a.time, (c + 1) * a.chunk); t++)
        if (tokens.length < a.limit) tokens.push(t)
    }
    for (let t = a.time - a.window; t < a.time; t++) if (!tokens.includes(t)) tokens.push(t)
    padded(kept).write(tokens.toSorted((x, y) => x - y))
  }
})

/**
 * Whole shots (ShotKV): in descending order of score each one that still fits into `budget` tokens.
 */
export const kvTopShots = defineKernel({
  name: "kv.top_shots",
  signature: "shots[number of starts] -> kept[1, budget]",
  attributes: { time: number(), starts: text(), budget: number() },
  outputDtypes: ["int32"],
  shapes: ([shots, ...others], { time, starts, budget }) => {
    const expected = parseStarts("kv.top_shots", starts, time).length
    if (shots?.length !== 1 || others.length > 0 || shots[0] !== expected)
      throw new RangeError(`kv.top_shots: expected [${expected}] shots`)
    return [[1, budget]]
  },
  taken: (kept, _, { a }) => {
    const tokens = new Set(kept)
    const starts = parseStarts("kv.top_shots", a.starts, a.time)
    return [...starts.keys()].filter((shot) => tokens.has(starts[shot]!))
  },
  flops: (_, [shots]) => sortFlops(shots.elements),
  reference: ([shots], [kept], { a }) => {
    const starts = parseStarts("kv.top_shots", a.starts, a.time)
    const tokens: Array<number> = []
    for (const shot of ranked(shots)) {
      const [from, to] = [starts[shot]!, starts[shot + 1] ?? a.time]
      if (tokens.length + to - from > a.budget) continue
      for (let t = from; t < to; t++) tokens.push(t)
    }
    padded(kept).write(tokens.toSorted((x, y) => x - y))
  }
})
