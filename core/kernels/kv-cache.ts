// The key/value cache of generation. One sequence's cache in one layer is cache[2, capacity, kvHeads * headWidth]: keys, then
// values, one row a token. Keys are stored turned (after RoPE), so rows may stand in any order. Where a token stands and which
// rows it takes is counted on the device (`kv.advance`), so that decoding submits the same ops for every token; what an op then
// costs, and how large its grid is, travels as scalars. Which rows are worth keeping is decided by kv-scores.ts and kv-select.ts.
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, number, type Operand, type Shape } from "./kernel.ts"
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

const matrix = (kernel: string, name: string, shape: Shape | undefined): readonly [number, number] => {
  if (shape === undefined || shape.length !== 2)
    throw new RangeError(`${kernel}: ${name} has shape ${printShape(shape ?? [])}; expected [batch, width]`)
  return [shape[0]!, shape[1]!]
}

const within = (kernel: string, what: string, value: number, capacity: number): void => {
  if (value > capacity) throw new RangeError(`${kernel}: ${what} ${value} of a cache of ${capacity} rows`)
}

/** Checks a batch's places in its caches and the caches of its first sequences; whoever has none pads the batch. */
const checkCaches = (
  kernel: string,
  batch: number,
  kvWidth: number,
  [rows, ...caches]: ReadonlyArray<Shape>,
  { list }: { readonly list: number }
): void => {
  const [lists, sequences] = matrix(kernel, "rows", rows)
  if (sequences !== batch || caches.length > batch)
    throw new RangeError(`${kernel}: ${caches.length} caches and ${sequences} places for ${batch} sequences`)
  if (!(Number.isInteger(list) && list >= 0 && list < lists))
    throw new RangeError(`${kernel}: list ${list} of ${lists}`)
  for (const [index, shape] of caches.entries()) {
    if (shape.length !== 3 || shape[0] !== 2 || shape[2] !== kvWidth)
      throw new RangeError(
        `${kernel}: cache ${index} has shape ${printShape(shape)}; expected [2, capacity, ${kvWidth}]`
      )
  }
}

/** Slack for products such as 0.7 * 10, which fall just short of a whole number. */
const slack = 1e-9

/** How many of so many tokens stay where a share of them does: one at least, where there are any. */
export const shareOf = (keep: number, tokens: number): number =>
  tokens === 0 ? 0 : Math.max(1, Math.floor(keep * tokens + slack))

/**
 * One more token of each sequence. `generated[i]` counts those that were appended to its caches before; the token stands at
 * position prompt[i] + generated[i], and takes the row behind the first[l, i] rows of the prompt and the generated tokens that
 * stay (`shareOf`) in the caches of list l. Then `generated` counts it, in place.
 */
export const kvAdvance = defineKernel({
  name: "kv.advance",
  signature:
    "generated[batch], prompt[batch], first[lists, batch] -> generated[batch], positions[batch], rows[lists, batch]",
  attributes: {
    /** Share of the generated tokens that stays. */
    keep: number(1)
  },
  inputDtypes: ["int32", "int32", "int32"],
  outputDtypes: ["int32", "int32", "int32"],
  inPlace: [[0, 0]],
  flops: (_, __, [, positions, rows]) => positions.elements + rows.elements,
  reference: ([generated, prompt, first], [counted, positions, rows], { a, dim }) => {
    const [batch, lists] = [dim("batch"), dim("lists")]
    for (let i = 0; i < batch; i++) {
      const before = generated[i]!
      positions[i] = prompt[i]! + before
      for (let l = 0; l < lists; l++) rows[l * batch + i] = first[l * batch + i]! + shareOf(a.keep, before)
      counted[i] = before + 1
    }
  }
})

const listAttribute = {
  /** Which of the lists of rows is the caches'. */
  list: number(0)
}

/** The row of sequence i, which a cache of `capacity` rows must have. */
const rowOf = (
  kernel: string,
  rows: TensorData,
  [batch, list, i]: readonly [number, number, number],
  capacity: number
): number => {
  const row = rows[list * batch + i]!
  if (!(row >= 0)) throw new RangeError(`${kernel}: row ${row} of a cache of ${capacity} rows`)
  within(kernel, "row", row + 1, capacity)
  return row
}

/** Row rows[list, i] of cache i becomes row i of k and v: the token just computed. In place; the caches stand on both sides. */
export const kvAppend = defineKernel({
  name: "kv.append",
  signature:
    "k[batch, kv], v[batch, kv], rows[lists, batch], cache[2, capacity, kv] (up to batch) -> cache[2, capacity, kv] (as many)",
  attributes: listAttribute,
  inputDtypes: [undefined, undefined, "int32"],
  shapes: ([k, v, ...rest], a) => {
    const [batch, width] = matrix("kv.append", "k", k)
    const other = matrix("kv.append", "v", v)
    if (other[0] !== batch || other[1] !== width)
      throw new RangeError(`kv.append: k is ${printShape(k!)}, v is ${printShape(v!)}`)
    checkCaches("kv.append", batch, width, rest, a)
    return rest.slice(1)
  },
  flops: () => 0,
  readBytes: (_, [k, v]) => k.sizeBytes + v.sizeBytes,
  // rows, not whole caches
  writtenBytes: (_, [k, v]) => k.sizeBytes + v.sizeBytes,
  reference: ([k, v, rows], caches, { a, shapes }) => {
    const [batch, width] = shapes[0]! as readonly [number, number]
    for (const [i, cache] of caches.slice(0, shapes.length - 3).entries()) {
      const row = rowOf("kv.append", rows, [batch, a.list, i], shapes[i + 3]![1]!)
      cache.set(k.subarray(i * width, (i + 1) * width), row * width)
      cache.set(v.subarray(i * width, (i + 1) * width), cache.length / 2 + row * width)
    }
  }
})

const attentionAttributes = {
  ...headAttributes,
  ...listAttribute,
  /** Rows in use that the op looks at, of all its sequences together. */
  cached: number(),
  /** Rows in use of the sequence that has most. */
  longest: number()
}

/** Checks a decoding call: one row of queries for each sequence, and its cache. */
const checkDecoding = (
  kernel: string,
  [q, ...rest]: ReadonlyArray<Shape>,
  a: Heads & { readonly list: number }
): void => {
  checkHeads(kernel, a)
  const [batch, width] = matrix(kernel, "q", q)
  if (width !== a.heads * a.headWidth)
    throw new RangeError(`${kernel}: q is ${printShape(q!)}; expected [batch, ${a.heads * a.headWidth}]`)
  checkCaches(kernel, batch, a.kvHeads * a.headWidth, rest, a)
}

/** Rows in use of each sequence's cache. Throws RangeError where the launch was told others. */
const lengthsOf = (
  kernel: string,
  rows: TensorData,
  [batch, list]: readonly [number, number],
  capacities: ReadonlyArray<number>,
  { longest }: { readonly longest: number }
): ReadonlyArray<number> => {
  const lengths = capacities.map((capacity, i) => rowOf(kernel, rows, [batch, list, i], capacity) + 1)
  const most = Math.max(0, ...lengths)
  if (most !== longest)
    throw new RangeError(`${kernel}: longest is ${longest}; the longest sequence has ${most} rows`)
  return lengths
}

const checkCached = (
  kernel: string,
  { cached }: { readonly cached: number },
  lengths: ReadonlyArray<number>
): void => {
  const total = sum(lengths)
  if (total !== cached) throw new RangeError(`${kernel}: cached is ${cached}; it looks at ${total} rows`)
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
 * One new token of each sequence attends to its cache: out[i] = softmax(q[i] k^T / sqrt(headWidth)) v over the rows up to
 * rows[list, i], per head. Rows of q beyond the caches pad the batch and get zeros.
 */
export const kvAttention = defineKernel({
  name: "kv.attention",
  signature: "q[batch, q], rows[lists, batch], cache[2, capacity, kv] (up to batch) -> out[batch, q]",
  attributes: attentionAttributes,
  scalars: ["cached", "longest"],
  costFollowsScalars: true,
  inputDtypes: [undefined, "int32"],
  shapes: (inputs, a) => {
    checkDecoding("kv.attention", inputs, a)
    return [inputs[0]!]
  },
  flops: ({ a }) => 4 * a.heads * a.headWidth * a.cached,
  // the rows in use, not whole caches
  readBytes: ({ a }, [q, , cache]) => q.sizeBytes + rowBytes(a.cached, a, cache),
  measure: "decode_attention",
  sizes: ({ a: { heads, kvHeads, headWidth, cached }, shapes }) => {
    const batch = shapes.length - 2
    return { batch, kv: batch === 0 ? 0 : cached / batch, heads, kvHeads, headWidth }
  },
  reference: ([q, rows, ...caches], [out], { a, shapes }) => {
    const { heads, kvHeads, headWidth } = a
    const capacities = shapes.slice(2).map((shape) => shape[1]!)
    const lengths = lengthsOf("kv.attention", rows, [shapes[0]![0]!, a.list], capacities, a)
    checkCached("kv.attention", a, lengths)
    const width = kvHeads * headWidth
    const weights = new Float64Array(a.longest)
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
 * Gives up one generated token of each sequence that holds more of them than stay of `generated[i]` (ShotKV's decode phase):
 * of the rows first[list, i] to rows[list, i] - 1, the one whose attention by q[i], summed over all query heads, is lowest (of
 * equals the last) is replaced by the newest, row rows[list, i]. In place.
 */
export const kvEvict = defineKernel({
  name: "kv.evict",
  signature:
    "q[batch, q], rows[lists, batch], first[lists, batch], generated[batch], cache[2, capacity, kv] (up to batch) -> cache[2, capacity, kv] (as many)",
  attributes: {
    ...attentionAttributes,
    /** Share of the generated tokens that stays. */
    keep: number(),
    /** Sequences that give one up; `cached` counts their rows, `longest` is that of all. */
    evicting: number()
  },
  scalars: ["evicting", "cached", "longest"],
  costFollowsScalars: true,
  inputDtypes: [undefined, "int32", "int32", "int32"],
  shapes: ([q, rows, first, generated, ...caches], a) => {
    checkDecoding("kv.evict", [q!, rows!, ...caches], a)
    const [batch] = q!
    const like = matrix("kv.evict", "first", first)
    if (like[0] !== rows![0] || like[1] !== batch || generated?.length !== 1 || generated[0] !== batch)
      throw new RangeError(
        `kv.evict: first is ${printShape(like)}, generated ${printShape(generated ?? [])}; expected ${printShape(rows!)} and [${batch}]`
      )
    return caches
  },
  flops: ({ a }) => 2 * a.heads * a.headWidth * a.cached,
  readBytes: ({ a }, [q, , , , cache]) => q.sizeBytes + rowBytes(a.cached, a, cache) / 2,
  writtenBytes: ({ a }, [, , , , cache]) => rowBytes(a.evicting, a, cache),
  reference: ([q, rows, first, generated, ...caches], outs, { a, shapes }) => {
    const { heads, kvHeads, headWidth, list } = a
    const batch = shapes[0]![0]!
    const width = kvHeads * headWidth
    const capacities = shapes.slice(4).map((shape) => shape[1]!)
    const lengths = lengthsOf("kv.evict", rows, [batch, list], capacities, a)
    const evicting = lengths.flatMap((length, sequence) => {
      const from = first[list * batch + sequence]!
      return length - from > shareOf(a.keep, generated[sequence]!) ? [{ sequence, from, length }] : []
    })
    checkCached(
      "kv.evict",
      a,
      evicting.map(({ length }) => length)
    )
    if (evicting.length !== a.evicting)
      throw new RangeError(`kv.evict: evicting is ${a.evicting}; ${evicting.length} sequences hold too many`)
    for (const { sequence, from, length } of evicting) {
      if (!(from >= 0 && from < length - 1))
        throw new RangeError(`kv.evict: no row of ${length} to give up from row ${from} on`)
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
