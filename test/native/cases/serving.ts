// Calls of the kernels of generation: rows that come and go, the key/value cache, what is kept of it.
import { printIntegers } from "../../../core/kernels/integer-list.ts"
import {
  floats,
  indices,
  leading,
  width,
  type CaseInput,
  type Draw,
  type KernelCase,
  type KernelCases
} from "./draw.ts"

const heads = (draw: Draw) => {
  const kvHeads = draw.integer(1, 3)
  return { kvHeads, heads: kvHeads * draw.integer(1, 3), headWidth: draw.integer(1, 12) }
}

/** A batch with caches for its first sequences, each with some rows in use. */
const decoding = (draw: Draw, rowsLeast: number) => {
  const of = heads(draw)
  const batch = draw.integer(1, 4)
  const kv = of.kvHeads * of.headWidth
  const capacities = Array.from({ length: draw.integer(0, batch) }, () => draw.integer(rowsLeast, 40))
  const lengths = capacities.map((capacity) => draw.integer(rowsLeast, capacity))
  const lists = draw.integer(1, 3)
  const list = draw.integer(0, lists - 1)
  /** An int32 tensor [lists, batch] with these in its list, and numbers that are no rows elsewhere. */
  const inList = (values: ReadonlyArray<number>): CaseInput => ({
    shape: [lists, batch],
    dtype: "int32",
    value: (i) => (Math.floor(i / batch) === list ? (values[i % batch] ?? 99) : 99)
  })
  return {
    of,
    batch,
    kv,
    lengths,
    list,
    inList,
    rows: inList(lengths.map((length) => length - 1)),
    longest: Math.max(0, ...lengths),
    q: floats([batch, of.heads * of.headWidth]),
    caches: capacities.map((capacity): CaseInput => ({
      shape: [2, capacity, kv],
      dtype: draw.flag() ? "float32" : "bfloat16"
    }))
  }
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** Scores with many ties, so that the rule for ties matters; each exact in float32. */
const scores = (draw: Draw, shape: ReadonlyArray<number>): CaseInput => ({
  shape,
  dtype: "float32",
  value: () => draw.integer(-4, 4) / 4
})

/** Increasing starts from 0, below `time`. */
const starts = (draw: Draw, time: number): ReadonlyArray<number> => {
  const list = [0]
  for (let t = 1; t < time; t++) if (draw.integer(0, 3) === 0) list.push(t)
  return list
}

const repack = (draw: Draw): KernelCase => {
  const cut = (total: number): Array<number> => {
    const parts: Array<number> = []
    for (let left = total; left > 0;) {
      const part = draw.integer(0, left)
      parts.push(part)
      left -= part
    }
    return parts.length === 0 ? [0] : parts
  }
  const total = draw.integer(0, 60)
  return { inputs: cut(total).map((part) => floats([part])), outputs: cut(total).map((part) => [part]) }
}

/** Beyond 32 bits, and up to where whole numbers end: a seed split by name may be any of them. */
const anySeed = (draw: Draw): number =>
  draw.flag()
    ? draw.integer(0, 9)
    : draw.flag()
      ? draw.integer(0, 2 ** 52)
      : Number.MAX_SAFE_INTEGER - draw.integer(0, 9)

/** Some elements of a tensor, or all: what is not written stays. Numbers across the place where an index needs more than 32 bits. */
const initial = (draw: Draw, attributes: Readonly<Record<string, number>>): KernelCase => {
  const shape = [...leading(draw), draw.integer(0, 40)]
  const elements = shape.reduce((product, extent) => product * extent, 1)
  const at = draw.flag() ? 0 : draw.integer(0, elements)
  const columns = draw.flag() ? 0 : draw.integer(1, 12)
  const window = {
    first: draw.flag() ? 2 ** 32 - draw.integer(1, 20) : draw.integer(0, 2 ** 40),
    at,
    count: draw.flag() ? 0 : draw.integer(0, elements - at),
    columns,
    stride: columns + draw.integer(0, 30)
  }
  const own: KernelCase = { inputs: [floats(shape)], attributes: { ...attributes, ...window } }
  return draw.flag() ? { ...own, inPlace: [0] } : own
}

export const servingCases: KernelCases = {
  normal_values: (draw) =>
    initial(draw, {
      seed: anySeed(draw),
      deviation: draw.flag() ? 1 : draw.integer(1, 99) / 1000
    }),
  uniform_values: (draw) =>
    initial(draw, {
      seed: anySeed(draw),
      low: -draw.integer(0, 99) / 70,
      high: draw.integer(0, 99) / 60
    }),
  constant_values: (draw) => initial(draw, { value: draw.integer(-9, 9) / 8 }),
  token_windows: (draw) => {
    const [batch, time] = [draw.integer(1, 5), draw.integer(1, 9)]
    const corpus = { shape: [time + draw.integer(1, 200)], dtype: "int32", value: (i: number) => i } as const
    // as far as a scenario's seed may go, and the stream that no rank has
    const seed = draw.flag() ? draw.integer(0, 9) : draw.integer(0, 2 ** 52)
    return {
      inputs: [corpus],
      attributes: { batch, time, seed, stream: draw.integer(-1, 4), step: draw.integer(0, 1e6) }
    }
  },
  concat_rows: (draw) => {
    const [rest, counts] = [
      leading(draw),
      Array.from({ length: draw.integer(1, 4) }, () => draw.integer(0, 4))
    ]
    const dtype = draw.flag() ? "float32" : "int32"
    const rows = counts.reduce((sum, count) => sum + count, 0) + draw.integer(0, 3)
    return {
      inputs: counts.map((count) => ({ shape: [count, ...rest], dtype, value: () => draw.integer(-99, 99) })),
      attributes: { rows },
      outputDtype: dtype
    }
  },
  split_rows: (draw) => {
    const counts = Array.from({ length: draw.integer(1, 4) }, () => draw.integer(0, 4))
    const rows = counts.reduce((sum, count) => sum + count, 0) + draw.integer(0, 3)
    return { inputs: [floats([rows, ...leading(draw)])], attributes: { counts: printIntegers(counts) } }
  },
  last_token: (draw) => ({ inputs: [floats([draw.integer(1, 3), draw.integer(1, 5), width(draw)])] }),
  argmax: (draw) => ({ inputs: [scores(draw, [...leading(draw), width(draw)])] }),
  repack,
  "rope.rows": (draw) => {
    const headWidth = 2 * draw.integer(1, 8)
    const batch = draw.integer(1, 4)
    return {
      inputs: [floats([batch, headWidth * draw.integer(1, 3)]), indices(draw, [batch], 201)],
      attributes: { headWidth },
      inPlace: [draw.flag() ? 0 : undefined]
    }
  },
  "kv.advance": (draw) => {
    const [batch, lists] = [draw.integer(1, 5), draw.integer(1, 4)]
    const counts = (shape: ReadonlyArray<number>): CaseInput => indices(draw, shape, 1000)
    return {
      inputs: [counts([batch]), counts([batch]), counts([lists, batch])],
      attributes: { keep: draw.flag() ? 1 : draw.integer(1, 99) / 100 },
      inPlace: [draw.flag() ? 0 : undefined]
    }
  },
  "kv.append": (draw) => {
    const { batch, kv, list, rows, caches } = decoding(draw, 1)
    return {
      inputs: [floats([batch, kv]), floats([batch, kv]), rows, ...caches],
      attributes: { list },
      inPlace: caches.map((_, i) => i + 3)
    }
  },
  "kv.attention": (draw) => {
    const { of, q, list, rows, lengths, longest, caches } = decoding(draw, 1)
    return { inputs: [q, rows, ...caches], attributes: { ...of, list, cached: sum(lengths), longest } }
  },
  "kv.evict": (draw) => {
    const { of, batch, q, list, rows, inList, lengths, longest, caches } = decoding(draw, 2)
    // Half of the tokens so far stay; who holds more than that has one too many.
    const first = lengths.map((length) => draw.integer(0, length - 2))
    const held = lengths.map((length, i) => length - first[i]!)
    const evicts = held.map(() => draw.flag())
    const generated = held.map((count, i) => 2 * count - (evicts[i]! ? 2 : 0) + draw.integer(0, 1))
    const looked = lengths.filter((_, i) => evicts[i])
    const counts: CaseInput = { shape: [batch], dtype: "int32", value: (i) => generated[i] ?? 1 }
    return {
      inputs: [q, rows, inList(first), counts, ...caches],
      attributes: {
        ...of,
        list,
        keep: 0.5,
        evicting: looked.length,
        cached: sum(looked),
        longest
      },
      inPlace: caches.map((_, i) => i + 4)
    }
  },
  "kv.gather": (draw) => {
    const { kvHeads, headWidth } = heads(draw)
    const time = draw.integer(1, 20)
    const keys = floats([1, time, kvHeads * headWidth])
    const list = draw.flag()
    const count = draw.integer(1, time)
    const used = draw.integer(0, count)
    const kept: CaseInput = {
      shape: [draw.flag() ? 1 : kvHeads, count],
      dtype: "int32",
      value: (i) => (i % count < used ? draw.integer(0, time - 1) : -1)
    }
    const capacity = (list ? count : time) + draw.integer(0, 5)
    return { inputs: list ? [keys, keys, kept] : [keys, keys], attributes: { kvHeads, capacity } }
  },
  "kv.place": (draw) => {
    const [rows, kv] = [draw.integer(1, 9), width(draw)]
    return { inputs: [floats([2, rows, kv])], attributes: { capacity: rows + draw.integer(0, 5) } }
  },
  "kv.window_scores": (draw) => {
    const of = heads(draw)
    const time = draw.integer(1, 30)
    const inputs = [floats([1, time, of.heads * of.headWidth]), floats([1, time, of.kvHeads * of.headWidth])]
    return {
      // whatever the sums are said to be, weights are relative to them
      inputs: draw.flag() ? [...inputs, floats([1, of.heads, time])] : inputs,
      attributes: { ...of, window: draw.integer(1, time), softmax: draw.flag() }
    }
  },
  "kv.pool_scores": (draw) => {
    const [lists, time] = [draw.integer(1, 3), draw.integer(1, 30)]
    return {
      inputs: [floats([lists, time])],
      attributes: {
        window: draw.integer(0, time),
        kernel: 2 * draw.integer(0, 4) + 1,
        mode: draw.flag() ? "avg" : "max"
      }
    }
  },
  "kv.chunk_scores": (draw) => ({
    inputs: [floats([draw.integer(1, 3), draw.integer(1, 30)])],
    attributes: { chunk: draw.integer(1, 12), reduce: draw.flag() ? "sum" : "mean" }
  }),
  "kv.shot_scores": (draw) => {
    const time = draw.integer(1, 30)
    return {
      inputs: [floats([draw.integer(1, 3), time])],
      attributes: { starts: printIntegers(starts(draw, time)) }
    }
  },
  "kv.top_tokens": (draw) => {
    const time = draw.integer(1, 30)
    return {
      inputs: [scores(draw, [draw.integer(1, 3), time])],
      attributes: { count: draw.integer(1, time) }
    }
  },
  "kv.sink_tokens": (draw) => {
    const time = draw.integer(1, 30)
    return { inputs: [], attributes: { time, sinks: draw.integer(0, 6), count: draw.integer(1, time) } }
  },
  "kv.top_chunks": (draw) => {
    const [time, chunk] = [draw.integer(1, 40), draw.integer(1, 9)]
    const chunks = Math.ceil(time / chunk)
    const count = draw.integer(1, chunks)
    const attributes = {
      time,
      chunk,
      count,
      limit: draw.integer(1, count * chunk),
      window: draw.integer(0, time)
    }
    return { inputs: [scores(draw, [chunks])], attributes }
  },
  "kv.top_shots": (draw) => {
    const time = draw.integer(1, 40)
    const list = starts(draw, time)
    const attributes = { time, starts: printIntegers(list), budget: draw.integer(1, time) }
    return { inputs: [scores(draw, [list.length])], attributes }
  }
}
