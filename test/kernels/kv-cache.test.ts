// Kernels of generation with a key/value cache: held to the kernels of training, which compute the same in another way, and
// to small cases worked out by hand. Which tokens each compression method keeps is tested in test/kv-serving.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { expectClose, floats, integers, numbers, random, run, type Value } from "./run.ts"

const seed = fc.integer({ min: 1, max: 1e6 })
const shape = { heads: 4, kvHeads: 2, headWidth: 4 }
const [width, kvWidth] = [16, 8]

const rows = ({ shape, data }: Value, from: number, to: number): Value => {
  const size = shape.slice(1).reduce((product, extent) => product * extent, 1)
  return { shape: [to - from, ...shape.slice(1)], data: data.slice(from * size, to * size) }
}

const reshaped = ({ data }: Value, shape: ReadonlyArray<number>): Value => ({ shape, data })

/** A kernel that works in place, on copies of its last operands. */
const inPlace = (
  name: "kv.append" | "kv.evict",
  rest: ReadonlyArray<Value>,
  caches: ReadonlyArray<Value>,
  attributes: Record<string, number | string>
): ReadonlyArray<Value> => {
  const outputs = caches.map(({ shape, data }) => ({ shape, data: data.slice() }))
  kernels[name].reference!(
    [...rest, ...outputs].map(({ data }) => data),
    outputs.map(({ data }) => data),
    attributes,
    {
      inputs: [...rest, ...caches].map(({ shape }) => shape),
      outputs: caches.map(({ shape }) => shape)
    }
  )
  return outputs
}

describe("decoding one token", () => {
  it("attends as causal attention does at the last position, each sequence to its own cache", () => {
    let padded = 0
    fc.assert(
      fc.property(
        seed,
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
        fc.nat({ max: 2 }),
        fc.nat({ max: 3 }),
        (seed, lengths, padding, room) => {
          if (padding > 0) padded++
          const next = numbers(seed)
          const q = random(next, [lengths.length + padding, width], 2)
          const k = lengths.map((length) => random(next, [1, length, kvWidth], 2))
          const v = lengths.map((length) => random(next, [1, length, kvWidth], 2))
          const caches = lengths.map(
            (length, i) =>
              run(kernels["kv.gather"], [k[i]!, v[i]!], {
                kvHeads: shape.kvHeads,
                capacity: length + room
              })[0]!
          )
          const total = lengths.reduce((sum, length) => sum + length, 0)
          const attributes = { ...shape, list: 1, cached: total, longest: Math.max(...lengths) }
          const newest = lengths.map((length) => length - 1)
          const pad = Array.from({ length: padding }, () => 99)
          // the second of two lists is theirs
          const places = integers([2, lengths.length + padding], [...lengths, ...pad, ...newest, ...pad])
          const out = run(kernels["kv.attention"], [q, places, ...caches], attributes)[0]!
          for (const told of [{ cached: total + 1 }, { longest: attributes.longest + 1 }])
            expect(() =>
              run(kernels["kv.attention"], [q, places, ...caches], { ...attributes, ...told })
            ).toThrow(/it looks at|the longest sequence has/)
          for (const i of lengths.keys()) {
            const query = reshaped(rows(q, i, i + 1), [1, 1, width])
            const expected = run(kernels["attention.forward"], [query, k[i]!, v[i]!], shape)[0]!
            expectClose(rows(out, i, i + 1).data, [...expected.data], 1e-12)
          }
          expect([...rows(out, lengths.length, lengths.length + padding).data]).toEqual(
            Array.from({ length: padding * width }, () => 0)
          )
        }
      )
    )
    expect(padded).toBeGreaterThan(20)
  })

  it("turns each row to its own position", () => {
    fc.assert(
      fc.property(
        seed,
        fc.array(fc.nat({ max: 5000 }), { minLength: 1, maxLength: 4 }),
        (seed, positions) => {
          const inp = random(numbers(seed), [positions.length, width])
          const at = integers([positions.length], positions)
          const out = run(kernels["rope.rows"], [inp, at], { headWidth: 4 })[0]!
          for (const [i, offset] of positions.entries()) {
            const row = reshaped(rows(inp, i, i + 1), [1, 1, width])
            const expected = run(kernels["rope.forward"], [row], { headWidth: 4, offset })[0]!
            expect([...rows(out, i, i + 1).data]).toEqual([...expected.data])
          }
        }
      )
    )
  })

  it("appended tokens are the ones a longer prompt would have left", () => {
    fc.assert(
      fc.property(
        seed,
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (seed, prompt, more) => {
          const next = numbers(seed)
          const time = prompt + more
          const [k, v] = [random(next, [1, time, kvWidth]), random(next, [1, time, kvWidth])]
          const cut = (value: Value) =>
            reshaped(rows(reshaped(value, [time, kvWidth]), 0, prompt), [1, prompt, kvWidth])
          const gather = { kvHeads: 2, capacity: time }
          let caches: ReadonlyArray<Value> = run(kernels["kv.gather"], [cut(k), cut(v)], gather)
          for (let t = prompt; t < time; t++) {
            const row = (value: Value) => rows(reshaped(value, [time, kvWidth]), t, t + 1)
            caches = inPlace("kv.append", [row(k), row(v), integers([1, 1], [t])], caches, {})
          }
          expect([...caches[0]!.data]).toEqual([...run(kernels["kv.gather"], [k, v], gather)[0]!.data])
          for (const beyond of [-1, time]) {
            const at = integers([1, 1], [beyond])
            const one = rows(reshaped(k, [time, kvWidth]), 0, 1)
            expect(() => inPlace("kv.append", [one, one, at], caches, {})).toThrow(/row .* of a cache of/)
          }
        }
      )
    )
  })

  it("gives up the generated token with the least attention, of equals the last", () => {
    // One head of width 1 and a query of 1: attention rises with the key. Rows 0 and 1 are the prompt's.
    const one = { heads: 1, kvHeads: 1, headWidth: 1 }
    // Of eight generated tokens three may stay; here are four, the newest in row 5.
    const evict = (keys: ReadonlyArray<number>, generated: number) => {
      const given = generated === 8 ? 1 : 0
      return [
        ...inPlace(
          "kv.evict",
          [floats([1, 1], [1]), integers([1, 1], [5]), integers([1, 1], [2]), integers([1], [generated])],
          [floats([2, 6, 1], [...keys, ...keys.map((key) => 10 * key)])],
          { ...one, keep: 0.4, evicting: given, cached: 6 * given, longest: 6 }
        )[0]!.data
      ]
    }
    expect(evict([-9, -8, 3, 1, 2, 4], 8)).toEqual([-9, -8, 3, 4, 2, 4, -90, -80, 30, 40, 20, 40])
    expect(evict([-9, -8, 1, 1, 2, 0], 8)).toEqual([-9, -8, 1, 0, 2, 0, -90, -80, 10, 0, 20, 0])
    // four of ten may stay
    expect(evict([-9, -8, 1, 1, 2, 0], 10)).toEqual([-9, -8, 1, 1, 2, 0, -90, -80, 10, 10, 20, 0])
  })

  it("counts positions and rows token by token, and no generated token stays beyond its share", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ prompt: fc.nat({ max: 50 }), dropped: fc.nat({ max: 50 }) }), {
          minLength: 1,
          maxLength: 4
        }),
        fc.constantFrom(1, 0.7, 0.5, 0.2),
        (sequences, keep) => {
          const batch = sequences.length
          const prompt = integers(
            [batch],
            sequences.map(({ prompt }) => prompt)
          )
          const first = [1, 2].flatMap((list) =>
            sequences.map(({ prompt, dropped }) => Math.max(0, prompt - list * dropped))
          )
          let generated = integers(
            [batch],
            sequences.map(() => 0)
          )
          for (let token = 0; token < 20; token++) {
            const [counted, positions, places] = run(
              kernels["kv.advance"],
              [generated, prompt, integers([2, batch], first)],
              { keep }
            )
            expect([...positions!.data]).toEqual(sequences.map((one) => one.prompt + token))
            const kept = token === 0 ? 0 : Math.max(1, Math.floor(keep * token + 1e-9))
            expect([...places!.data]).toEqual(first.map((row) => row + kept))
            expect([...counted!.data]).toEqual(sequences.map(() => token + 1))
            generated = counted!
          }
        }
      ),
      { numRuns: 20 }
    )
  })
})

describe("scores and choices", () => {
  it("gather picks each head's own tokens, and stops at -1", () => {
    // token t has key [t, 100 + t]: one value for each of two heads of width 1
    const k = floats([1, 4, 2], [0, 100, 1, 101, 2, 102, 3, 103])
    const v = floats([1, 4, 2], [0, -100, -1, -101, -2, -102, -3, -103])
    const own = run(kernels["kv.gather"], [k, v, integers([2, 2], [0, 3, 1, 2])], { kvHeads: 2, capacity: 2 })
    expect([...own[0]!.data]).toEqual([0, 101, 3, 102, 0, -101, -3, -102])
    const shared = run(kernels["kv.gather"], [k, v, integers([1, 3], [1, 3, -1])], {
      kvHeads: 2,
      capacity: 2
    })
    expect([...shared[0]!.data]).toEqual([1, 101, 3, 103, -1, -101, -3, -103])
    expect(() =>
      run(kernels["kv.gather"], [k, v, integers([1, 3], [0, 1, 2])], { kvHeads: 2, capacity: 2 })
    ).toThrow(/row 2 of 2/)
  })

  it("place keeps keys and values together where there is more room", () => {
    const placed = run(kernels["kv.place"], [floats([2, 1, 2], [1, 2, 3, 4])], { capacity: 2 })[0]!
    expect(placed.shape).toEqual([2, 2, 2])
    expect([...placed.data].filter((value) => !Number.isNaN(value))).toEqual([1, 2, 3, 4])
    expect([placed.data[0], placed.data[4]]).toEqual([1, 3])
    expect(() => run(kernels["kv.place"], [floats([2, 1, 1], [1, 2])], { capacity: 0 })).toThrow(/rows 1/)
  })

  it("window scores of all queries add up to 1 over the prompt", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 1, max: 8 }), fc.nat(), (seed, time, cut) => {
        const next = numbers(seed)
        const [q, k] = [random(next, [1, time, width], 3), random(next, [1, time, kvWidth], 3)]
        const window = 1 + (cut % time)
        const { data } = run(kernels["kv.window_scores"], [q, k], { ...shape, window })[0]!
        for (let head = 0; head < 2; head++) {
          let total = 0
          for (let t = 0; t < time; t++) total += data[head * time + t]!
          expect(total).toBeCloseTo(1, 12)
        }
      })
    )
  })

  it("window scores are the same with what attention has left of the queries", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 1, max: 8 }), fc.nat(), (seed, time, cut) => {
        const next = numbers(seed)
        const [q, k] = [random(next, [1, time, width], 3), random(next, [1, time, kvWidth], 3)]
        const window = 1 + (cut % time)
        const lse = run(kernels["attention.forward"], [q, k, k], shape)[1]!
        const alone = run(kernels["kv.window_scores"], [q, k], { ...shape, window })[0]!
        const known = run(kernels["kv.window_scores"], [q, k, lse], { ...shape, window })[0]!
        for (const [i, score] of alone.data.entries()) expect(known.data[i]).toBeCloseTo(score, 5)
        // what is said of them is used
        const twice = { ...lse, data: lse.data.map((sum) => sum - Math.log(2)) }
        const doubled = run(kernels["kv.window_scores"], [q, k, twice], { ...shape, window })[0]!
        for (const [i, score] of alone.data.entries()) expect(doubled.data[i]).toBeCloseTo(2 * score, 5)
      })
    )
  })

  it("pools the prefix, counting zeros beyond the ends for the mean, and puts the window on top", () => {
    const scores = floats([2, 6], [3, 0, 6, 0, 9, 9, 0, 0, 3, 3, 9, 9])
    const avg = run(kernels["kv.pool_scores"], [scores], { window: 2, kernel: 3, mode: "avg" })[0]!
    expect([...avg.data]).toEqual([1, 3, 2, 2, 4, 4, 0, 1, 2, 2, 4, 4])
    const max = run(kernels["kv.pool_scores"], [scores], { window: 2, kernel: 3, mode: "max" })[0]!
    expect([...max.data]).toEqual([3, 6, 6, 6, 7, 7, 0, 3, 3, 3, 7, 7])
  })

  it("chunks and shots add heads and weigh a short last chunk by its tokens", () => {
    const scores = floats([2, 5], [1, 2, 3, 4, 5, 10, 20, 30, 40, 50])
    const chunks = (reduce: string) => [
      ...run(kernels["kv.chunk_scores"], [scores], { chunk: 2, reduce })[0]!.data
    ]
    expect(chunks("sum")).toEqual([33, 77, 55])
    expect(chunks("mean")).toEqual([16.5, 38.5, 55])
    expect([...run(kernels["kv.shot_scores"], [scores], { starts: "0,1,4" })[0]!.data]).toEqual([11, 33, 55])
    expect(() => run(kernels["kv.shot_scores"], [scores], { starts: "1,4" })).toThrow(/rise from 0/)
  })

  it("ties go to the lower index, and lists are in order of position", () => {
    const scores = floats([2, 4], [1, 5, 5, 5, 7, 7, 8, 7])
    expect([...run(kernels["kv.top_tokens"], [scores], { count: 2 })[0]!.data]).toEqual([1, 2, 0, 2])
    const chunks = floats([4], [5, 9, 5, 5])
    const top = (limit: number, window: number) => [
      ...run(kernels["kv.top_chunks"], [chunks], { time: 11, chunk: 3, count: 2, limit, window })[0]!.data
    ]
    expect(top(6, 0)).toEqual([0, 1, 2, 3, 4, 5])
    expect(top(4, 2)).toEqual([0, 1, 2, 3, 9, 10])
    const last = floats([4], [0, 0, 5, 9])
    const tail = run(kernels["kv.top_chunks"], [last], { time: 11, chunk: 3, count: 2, limit: 6, window: 3 })
    expect([...tail[0]!.data]).toEqual([6, 7, 8, 9, 10, -1, -1, -1, -1])
  })

  it("keeps whole shots that still fit", () => {
    const shots = (scores: ReadonlyArray<number>, budget: number) => [
      ...run(kernels["kv.top_shots"], [floats([3], scores)], { time: 7, starts: "0,2,6", budget })[0]!.data
    ]
    expect(shots([1, 3, 2], 5)).toEqual([2, 3, 4, 5, 6])
    expect(shots([1, 3, 2], 4)).toEqual([2, 3, 4, 5])
    expect(shots([2, 3, 1], 3)).toEqual([0, 1, 6])
    expect(shots([2, 3, 2], 2)).toEqual([0, 1])
  })

  it("sinks and the newest tokens", () => {
    const sinks = (count: number) => [
      ...run(kernels["kv.sink_tokens"], [], { time: 9, sinks: 4, count })[0]!.data
    ]
    expect(sinks(6)).toEqual([0, 1, 2, 3, 7, 8])
    expect(sinks(3)).toEqual([0, 1, 2])
    expect(sinks(9)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
  })
})

describe("rows", () => {
  it("are the same after they were put together and dealt out", () => {
    fc.assert(
      fc.property(
        seed,
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 }),
        fc.nat({ max: 2 }),
        (seed, counts, padding) => {
          const next = numbers(seed)
          const parts = counts.map((count) => random(next, [count, 2, 3]))
          const total = counts.reduce((sum, count) => sum + count, 0)
          const joined = run(kernels.concat_rows, parts, { rows: total + padding })[0]!
          const dealt = run(kernels.split_rows, [joined], { counts: counts.join(",") })
          expect(dealt.map(({ shape }) => shape)).toEqual(parts.map(({ shape }) => shape))
          expect(dealt.map(({ data }) => [...data])).toEqual(parts.map(({ data }) => [...data]))
        }
      )
    )
  })

  it("argmax takes the lower of equals; the last token is the last", () => {
    expect([...run(kernels.argmax, [floats([2, 3], [1, 4, 4, -1, -2, -1])])[0]!.data]).toEqual([1, 0])
    const last = run(kernels.last_token, [floats([2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8])])[0]!
    expect([...last.data]).toEqual([3, 4, 7, 8])
  })
})
