// The key/value cache of generation. One sequence's cache in one layer is cache[2, capacity, kvHeads * headWidth]: keys, then
// values, one row a token. Keys are stored turned (after RoPE), so rows may stand in any order. How many rows are in use is
// known to the host and travels in an attribute. Which rows are worth keeping is decided by kv-scores.ts and kv-select.ts.
import type { TensorData } from "../machine/tensor.ts"
import { parseIntegers } from "./integer-list.ts"
import { defineKernel, number, text, type Operand, type Shape } from "./kernel.ts"
import { printShape } from "./signature.ts"

const headAttributes = { heads: number(), kvHeads: number(), headWidth: number() }

interface Heads {
  readonly heads: number
  readonly kvHeads: number
  readonly headWidth: number
}

const checkHeads = (kernel: string, { heads, kvHeads }: Heads): void => {
  if (!(kvHeads > 0) || heads % kvHeads !== 0)
    throw new RangeError(`${kernel}: ${heads} heads cannot share ${kvHeads} key/value heads`)
}

/** Checks a batch of rows and the caches of its first sequences; rows beyond the caches pad the batch. */
const checkCaches = (
  kernel: string,
  [batch, width]: readonly [number, number],
  kvWidth: number,
  caches: ReadonlyArray<Shape>,
  listed: ReadonlyArray<number>
): void => {
  if (caches.length !== listed.length || caches.length > batch)
    throw new RangeError(
      `${kernel}: ${caches.length} caches for ${listed.length} listed sequences and ${batch} rows`
    )
  for (const [index, shape] of caches.entries()) {
    if (shape.length !== 3 || shape[0] !== 2 || shape[2] !== kvWidth)
      throw new RangeError(
        `${kernel}: cache ${index} has shape ${printShape(shape)}; expected [2, capacity, ${kvWidth}] beside rows of ${width}`
      )
  }
}

const matrix = (kernel: string, name: string, shape: Shape | undefined): readonly [number, number] => {
  if (shape === undefined || shape.length !== 2)
    throw new RangeError(`${kernel}: ${name} has shape ${printShape(shape ?? [])}; expected [batch, width]`)
  return [shape[0]!, shape[1]!]
}

const within = (kernel: string, what: string, value: number, capacity: number): void => {
  if (value > capacity) throw new RangeError(`${kernel}: ${what} ${value} of a cache of ${capacity} rows`)
}

/**
 * Row `positions[i]` of cache i becomes row i of k and v: the token just computed. In place; the caches stand on both sides.
 */
export const kvAppend = defineKernel({
  name: "kv.append",
  signature:
    "k[batch, kv], v[batch, kv], cache[2, capacity, kv] (up to batch) -> cache[2, capacity, kv] (as many)",
  attributes: {
    /** "17,4": the row that each sequence's token takes. */
    positions: text()
  },
  shapes: ([k, v, ...caches], { positions }) => {
    const [batch, width] = matrix("kv.append", "k", k)
    const other = matrix("kv.append", "v", v)
    if (other[0] !== batch || other[1] !== width)
      throw new RangeError(`kv.append: k is ${printShape(k!)}, v is ${printShape(v!)}`)
    const rows = parseIntegers("kv.append", "positions", positions)
    checkCaches("kv.append", [batch, width], width, caches, rows)
    for (const [index, row] of rows.entries()) within("kv.append", "row", row + 1, caches[index]![1]!)
    return caches
  },
  flops: () => 0,
  readBytes: (_, [k, v]) => k.sizeBytes + v.sizeBytes,
  // rows, not whole caches
  writtenBytes: (_, [k, v]) => k.sizeBytes + v.sizeBytes,
  reference: ([k, v], caches, { a, shapes }) => {
    const width = shapes[0]![1]!
    for (const [i, row] of parseIntegers("kv.append", "positions", a.positions).entries()) {
      const cache = caches[i]!
      cache.set(k.subarray(i * width, (i + 1) * width), row * width)
      cache.set(v.subarray(i * width, (i + 1) * width), cache.length / 2 + row * width)
    }
  }
})

const attentionAttributes = {
  ...headAttributes,
  /** "18,5": rows in use of each sequence's cache. */
  lengths: text()
}

/** Checks a decoding call: one row of queries for each sequence, and its cache. */
const checkDecoding = (
  kernel: string,
  [q, ...caches]: ReadonlyArray<Shape>,
  a: Heads & { readonly lengths: string }
): void => {
  checkHeads(kernel, a)
  const [batch, width] = matrix(kernel, "q", q)
  if (width !== a.heads * a.headWidth)
    throw new RangeError(`${kernel}: q is ${printShape(q!)}; expected [batch, ${a.heads * a.headWidth}]`)
  const lengths = parseIntegers(kernel, "lengths", a.lengths, 1)
  checkCaches(kernel, [batch, width], a.kvHeads * a.headWidth, caches, lengths)
  for (const [index, length] of lengths.entries()) within(kernel, "length", length, caches[index]![1]!)
}

/** Bytes of `rows` rows of keys and values. */
const rowBytes = (rows: number, { kvHeads, headWidth }: Heads, cache: Operand | undefined): number =>
  cache === undefined ? 0 : (2 * rows * kvHeads * headWidth * cache.sizeBytes) / cache.elements

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** weights[s] = softmax over the first `length` rows of (query . key s) / sqrt(headWidth), for one query head. */
const attend = (
  [q, qAt]: readonly [TensorData, number],
  [cache, kvHead]: readonly [TensorData, number],
  length: number,
  { kvHeads, headWidth }: Heads,
  weights: Float64Array
): void => {
  const width = kvHeads * headWidth
  const scale = 1 / Math.sqrt(headWidth)
  let max = -Infinity
  for (let s = 0; s < length; s++) {
    let dot = 0
    for (let i = 0; i < headWidth; i++) dot += q[qAt + i]! * cache[s * width + kvHead * headWidth + i]!
    weights[s] = scale * dot
    max = Math.max(max, weights[s]!)
  }
  let total = 0
  for (let s = 0; s < length; s++) {
    weights[s] = Math.exp(weights[s]! - max)
    total += weights[s]!
  }
  for (let s = 0; s < length; s++) weights[s]! /= total
}

/**
 * One new token of each sequence attends to its cache: out[i] = softmax(q[i] k^T / sqrt(headWidth)) v over the first
 * `lengths[i]` rows of cache i, per head. Rows beyond the caches pad the batch and get zeros.
 */
export const kvAttention = defineKernel({
  name: "kv.attention",
  signature: "q[batch, q], cache[2, capacity, kv] (up to batch) -> out[batch, q]",
  attributes: attentionAttributes,
  shapes: (inputs, a) => {
    checkDecoding("kv.attention", inputs, a)
    return [inputs[0]!]
  },
  flops: ({ a }) => 4 * a.heads * a.headWidth * sum(parseIntegers("kv.attention", "lengths", a.lengths)),
  // the rows in use, not whole caches
  readBytes: ({ a }, [q, cache]) =>
    q.sizeBytes + rowBytes(sum(parseIntegers("kv.attention", "lengths", a.lengths)), a, cache),
  measure: "decode_attention",
  sizes: ({ a: { heads, kvHeads, headWidth, lengths } }) => {
    const each = parseIntegers("kv.attention", "lengths", lengths)
    return { batch: each.length, kv: sum(each) / each.length, heads, kvHeads, headWidth }
  },
  reference: ([q, ...caches], [out], { a }) => {
    const { heads, kvHeads, headWidth } = a
    const lengths = parseIntegers("kv.attention", "lengths", a.lengths)
    const width = kvHeads * headWidth
    const weights = new Float64Array(Math.max(0, ...lengths))
    out.fill(0)
    for (const [i, length] of lengths.entries()) {
      const cache = caches[i]!
      const values = cache.length / 2
      for (let h = 0; h < heads; h++) {
        const kvHead = Math.floor(h / (heads / kvHeads))
        const at = (i * heads + h) * headWidth
        attend([q, at], [cache, kvHead], length, a, weights)
        for (let c = 0; c < headWidth; c++) {
          let mixed = 0
          for (let s = 0; s < length; s++)
            mixed += weights[s]! * cache[values + s * width + kvHead * headWidth + c]!
          out[at + c] = mixed
        }
      }
    }
  }
})

/**
 * Gives up one generated token of each sequence that has one too many (ShotKV's decode phase). For sequence i with
 * `from[i]` >= 0: of the rows from[i] to lengths[i] - 2, the one whose attention by q[i], summed over all query heads, is
 * lowest (of equals the last) is replaced by the newest, row lengths[i] - 1. -1 leaves a sequence alone. In place.
 */
export const kvEvict = defineKernel({
  name: "kv.evict",
  signature: "q[batch, q], cache[2, capacity, kv] (up to batch) -> cache[2, capacity, kv] (as many)",
  attributes: {
    ...attentionAttributes,
    /** "12,-1": the first generated row of each sequence, or -1. */
    from: text()
  },
  shapes: (inputs, a) => {
    checkDecoding("kv.evict", inputs, a)
    const from = parseIntegers("kv.evict", "from", a.from, -1)
    const lengths = parseIntegers("kv.evict", "lengths", a.lengths, 1)
    if (from.length !== lengths.length || from.some((row, i) => row >= 0 && row > lengths[i]! - 2))
      throw new RangeError(`kv.evict: from "${a.from}" does not fit lengths "${a.lengths}"`)
    return inputs.slice(1)
  },
  flops: ({ a }) => 2 * a.heads * a.headWidth * sum(evicting(a).map(({ length }) => length)),
  readBytes: ({ a }, [q, cache]) =>
    q.sizeBytes + rowBytes(sum(evicting(a).map(({ length }) => length)), a, cache) / 2,
  writtenBytes: ({ a }, [, cache]) => rowBytes(evicting(a).length, a, cache),
  reference: ([q, ...caches], outs, { a }) => {
    const { heads, kvHeads, headWidth } = a
    const width = kvHeads * headWidth
    for (const { sequence, from, length } of evicting(a)) {
      const cache = caches[sequence]!
      const weights = new Float64Array(length)
      const scores = new Float64Array(length)
      for (let h = 0; h < heads; h++) {
        const kvHead = Math.floor(h / (heads / kvHeads))
        attend([q, (sequence * heads + h) * headWidth], [cache, kvHead], length, a, weights)
        for (let s = 0; s < length; s++) scores[s]! += weights[s]!
      }
      let lowest = from
      for (let s = from; s < length - 1; s++) if (scores[s]! <= scores[lowest]!) lowest = s
      const out = outs[sequence]!
      for (const half of [0, cache.length / 2]) {
        const newest = half + (length - 1) * width
        out.set(cache.subarray(newest, newest + width), half + lowest * width)
      }
    }
  }
})

const evicting = (a: { readonly lengths: string; readonly from: string }) => {
  const lengths = parseIntegers("kv.evict", "lengths", a.lengths)
  return parseIntegers("kv.evict", "from", a.from, -1)
    .map((from, sequence) => ({ sequence, from, length: lengths[sequence]! }))
    .filter(({ from }) => from >= 0)
}

/**
 * A sequence's cache from what prefill computed: row r of head h is token kept[h, r] of that head, or kept[0, r] where all
 * heads share one list; without `kept` every token in order. -1 ends a list. Rows beyond stay as they are, free for
 * generated tokens.
 */
export const kvGather = defineKernel({
  name: "kv.gather",
  signature:
    "k[1, time, kvHeads*headWidth], v[1, time, kvHeads*headWidth], kept[lists, count]? -> cache[2, capacity, kvHeads*headWidth]",
  attributes: { kvHeads: number(), capacity: number() },
  inputDtypes: [undefined, undefined, "int32"],
  extents: ({ kvHeads, capacity }) => ({ kvHeads, capacity }),
  flops: () => 0,
  readBytes: (call, [k, v, kept]) =>
    call.shapes.length < 3
      ? k.sizeBytes + v.sizeBytes
      : kept.sizeBytes + 2 * rowsBytes(k, call.dim("time"), call.dim("count")),
  // the kept rows, not the room for more
  writtenBytes: (call, [k]) =>
    2 * rowsBytes(k, call.dim("time"), call.shapes.length < 3 ? call.dim("time") : call.dim("count")),
  reference: (inputs, [cache], { a, dim, shapes }) => {
    const [time, headWidth] = [dim("time"), dim("headWidth")]
    const kept = shapes.length < 3 ? undefined : inputs[2]
    const [lists, count] = kept === undefined ? [1, time] : [dim("lists"), dim("count")]
    if (lists !== 1 && lists !== a.kvHeads)
      throw new RangeError(`kv.gather: ${lists} lists for ${a.kvHeads} key/value heads`)
    const width = a.kvHeads * headWidth
    for (const [half, source] of [inputs[0], inputs[1]].entries()) {
      for (let h = 0; h < a.kvHeads; h++) {
        const list = lists === 1 ? 0 : h
        for (let r = 0; r < count; r++) {
          const token = kept === undefined ? r : kept[list * count + r]!
          if (token < 0) break
          if (token >= time || r >= a.capacity)
            throw new RangeError(`kv.gather: token ${token} of ${time} into row ${r} of ${a.capacity}`)
          for (let i = 0; i < headWidth; i++) {
            cache[(half * a.capacity + r) * width + h * headWidth + i] =
              source[token * width + h * headWidth + i]!
          }
        }
      }
    }
  }
})

const rowsBytes = (k: Operand, time: number, rows: number): number =>
  time === 0 ? 0 : (k.sizeBytes / time) * rows

/** A cache that came from elsewhere, into one with room for generated tokens: its rows are the first ones there. */
export const kvPlace = defineKernel({
  name: "kv.place",
  signature: "inp[2, rows, kv] -> cache[2, capacity, kv]",
  attributes: { capacity: number() },
  extents: ({ capacity }) => ({ capacity }),
  flops: () => 0,
  // the rows that came, not the room for more
  writtenBytes: (_, [inp]) => inp.sizeBytes,
  reference: ([inp], [cache], { a, shapes }) => {
    const width = shapes[0]![2]!
    const half = shapes[0]![1]! * width
    within("kv.place", "rows", shapes[0]![1]!, a.capacity)
    cache.set(inp.subarray(0, half), 0)
    cache.set(inp.subarray(half, 2 * half), a.capacity * width)
  }
})
