// Values of collectives, over all members.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { collectiveNamed, collectives, kernelNamed } from "../../core/kernels/catalogue.ts"
import { printCounts, throughWire, type Collective } from "../../core/kernels/collectives.ts"
import { evaluateCollective } from "../../core/kernels/evaluate.ts"
import { operand, type Attributes } from "../../core/kernels/kernel.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import { numbers } from "./run.ts"

/** Runs a collective on float32 (or other) vectors, each member with its own attributes or all with the same. */
const perform = (
  collective: Collective,
  inputs: ReadonlyArray<ReadonlyArray<Float32Array>>,
  attributes: Attributes | ReadonlyArray<Attributes>,
  dtype: Dtype = "float32"
): ReadonlyArray<ReadonlyArray<Float32Array>> => {
  const members = inputs.map((inputData, rank) => {
    const own = (Array.isArray(attributes) ? attributes[rank] : attributes) as Attributes
    const operands = inputData.map(({ length }) => operand([length], dtype))
    const outputs = collective.shapes(operands, own)!.map((shape) => operand(shape, dtype))
    const outputData = outputs.map(({ elements }) => new Float32Array(elements).fill(Number.NaN))
    return { inputs: operands, inputData, outputs, outputData, attributes: own }
  })
  evaluateCollective(collective, members)
  return members.map(({ outputData }) => outputData)
}

const vector = (next: () => number, length: number): Float32Array => Float32Array.from({ length }, next)

const groups = fc.record({
  seed: fc.integer({ min: 1, max: 1e6 }),
  ranks: fc.integer({ min: 1, max: 5 }),
  rows: fc.integer({ min: 1, max: 4 }),
  reduce: fc.constantFrom("sum", "avg")
})

describe("reductions", () => {
  it("all_reduce adds in rank order and gives every member the same bits", () => {
    // in float32, 1 + 2^-24 - 1 is 0 in this order; float64 keeps it
    const inputs = [[Float32Array.of(1)], [Float32Array.of(2 ** -24)], [Float32Array.of(-1)]]
    for (const out of perform(collectives.all_reduce, inputs, {})) expect([...out[0]!]).toEqual([2 ** -24])
    const average = perform(collectives.all_reduce, inputs, { reduce: "avg" })
    expect(average[2]![0]![0]).toBe(Math.fround(2 ** -24 / 3))
  })

  it("reduce_scatter and then all_gather equals all_reduce, for any number of tensors", () => {
    let several = 0
    fc.assert(
      fc.property(groups, fc.integer({ min: 1, max: 3 }), ({ seed, ranks, rows, reduce }, tensors) => {
        const next = numbers(seed)
        const inputs = Array.from({ length: ranks }, () =>
          Array.from({ length: tensors }, () => vector(next, ranks * rows))
        )
        const parts = perform(collectives.reduce_scatter, inputs, { ranks, reduce })
        expect(parts[0]![0]!.length).toBe(rows)
        const gathered = perform(collectives.all_gather, parts, { ranks })
        expect(gathered).toEqual(perform(collectives.all_reduce, inputs, { reduce }))
        if (ranks > 1 && tensors > 1) several++
      })
    )
    expect(several).toBeGreaterThan(30)
  })

  it("runs in place", () => {
    const next = numbers(3)
    const inputs = [0, 1, 2].map(() => [vector(next, 4)])
    const expected = perform(collectives.all_reduce, inputs, { reduce: "avg" })
    const like = [operand([4], "float32")]
    evaluateCollective(
      collectives.all_reduce,
      inputs.map((data) => ({
        inputs: like,
        inputData: data,
        outputs: like,
        outputData: data,
        attributes: { reduce: "avg" }
      }))
    )
    expect(inputs).toEqual(expected)
  })

  it("rounds results to the dtype of the tensors", () => {
    // 256 + 1 is a tie between 256 and 258 in bfloat16
    const out = perform(
      collectives.all_reduce,
      [[Float32Array.of(256)], [Float32Array.of(1)]],
      {},
      "bfloat16"
    )
    expect(out[0]![0]![0]).toBe(256)
  })

  it("rounds what travels to the wire dtype, but not the sum", () => {
    const inputs = [[Float32Array.of(1 + 2 ** -8, 1)], [Float32Array.of(3 * 2 ** -9, 5)]]
    const out = perform(collectives.all_reduce, inputs, { wire: "bfloat16" })
    // 1 + 2^-8 ties to 1; 3 * 2^-9 is a bfloat16; their sum is not
    expect([...out[1]![0]!]).toEqual([1 + 3 * 2 ** -9, 6])
    // float4 with one scale per tensor: 16 sets the scale 1; 5 -> 4, 7 -> 8
    const narrow = perform(
      collectives.all_reduce,
      [[Float32Array.of(16, 5, 7)], [Float32Array.of(-16, 0, 0.25)]],
      { wire: "float4" }
    )
    expect([...narrow[0]![0]!]).toEqual([0, 4, 8.25])
    expect(throughWire(Int32Array.of(3), "float4")).toEqual(Int32Array.of(3))
    expect(() => perform(collectives.all_reduce, inputs, { wire: "fp4" })).toThrow(
      /"fp4"; expected one of float32/
    )
  })

  it("wire rounding moves a value by at most half a step of its format, relative to the largest", () => {
    // float4: half of 16 - 8 of 16; float8: half of 32 of 448; int8: half of 1 of 127; bfloat16: half of 2^-7
    const bounds = { float4: 4 / 16, float8: 16 / 448, int8: 0.5 / 127, bfloat16: 2 ** -8 } as const
    fc.assert(
      fc.property(groups, fc.constantFrom("float4", "float8", "int8", "bfloat16"), ({ seed, rows }, wire) => {
        const data = vector(numbers(seed), rows * 3)
        const largest = data.reduce((max, x) => Math.max(max, Math.abs(x)), 0)
        const received = throughWire(data, wire)
        expect(received).not.toBe(data)
        for (const [i, x] of data.entries()) {
          expect(Math.abs(received[i]! - x)).toBeLessThanOrEqual(
            bounds[wire as keyof typeof bounds] * largest * 1.0001
          )
        }
      })
    )
  })
})

describe("exchanges", () => {
  it("even all_to_all twice is the identity, and once is the transpose", () => {
    fc.assert(
      fc.property(groups, ({ seed, ranks, rows }) => {
        const next = numbers(seed)
        const inputs = Array.from({ length: ranks }, () => [vector(next, ranks * rows)])
        const once = perform(collectives.all_to_all, inputs, { ranks })
        for (let from = 0; from < ranks; from++) {
          for (let to = 0; to < ranks; to++) {
            expect(once[to]![0]!.slice(from * rows, (from + 1) * rows)).toEqual(
              inputs[from]![0]!.slice(to * rows, (to + 1) * rows)
            )
          }
        }
        expect(perform(collectives.all_to_all, once, { ranks })).toEqual(inputs)
      })
    )
  })

  it("uneven all_to_all there and back with transposed counts is the identity", () => {
    let empty = 0
    let uneven = 0
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }).chain((ranks) =>
          fc.array(fc.array(fc.nat(3), { minLength: ranks, maxLength: ranks }), {
            minLength: ranks,
            maxLength: ranks
          })
        ),
        fc.integer({ min: 1, max: 1e6 }),
        (counts, seed) => {
          const next = numbers(seed)
          const ranks = counts.length
          const transposed = counts.map((_, to) => counts.map((row) => row[to]!))
          const total = (row: ReadonlyArray<number>) => row.reduce((a, b) => a + b, 0)
          if (counts.some((row) => total(row) === 0)) empty++
          if (new Set(counts.flat()).size > 1) uneven++
          const attributes = (sends: typeof counts, receives: typeof counts) =>
            counts.map((_, rank) => ({
              ranks,
              sendCounts: printCounts(sends[rank]!),
              receiveCounts: printCounts(receives[rank]!)
            }))
          const inputs = counts.map((row) => [vector(next, total(row))])
          const there = perform(collectives.all_to_all, inputs, attributes(counts, transposed))
          expect(there.map(([data]) => data!.length)).toEqual(transposed.map(total))
          const back = perform(collectives.all_to_all, there, attributes(transposed, counts))
          expect(back).toEqual(inputs)
        }
      ),
      { numRuns: 200 }
    )
    expect(empty).toBeGreaterThan(10)
    expect(uneven).toBeGreaterThan(100)
  })

  it("all_gather, broadcast and send_recv put values where they belong", () => {
    const inputs = [[Float32Array.of(1, 2)], [Float32Array.of(3, 4)]]
    for (const out of perform(collectives.all_gather, inputs, { ranks: 2 })) {
      expect([...out[0]!]).toEqual([1, 2, 3, 4])
    }
    for (const out of perform(collectives.broadcast, inputs, { root: 1 }))
      expect([...out[0]!]).toEqual([3, 4])

    const like = operand([2], "float32")
    const received = new Float32Array(2)
    evaluateCollective(collectives.send_recv, [
      { inputs: [], inputData: [], outputs: [like], outputData: [received], attributes: { source: false } },
      {
        inputs: [like],
        inputData: [Float32Array.of(5, 6)],
        outputs: [],
        outputData: [],
        attributes: { source: true }
      }
    ])
    expect([...received]).toEqual([5, 6])
  })
})

describe("contradictions are defects with a name", () => {
  const one = [[Float32Array.of(1, 2)], [Float32Array.of(3, 4)]]
  const cases: ReadonlyArray<readonly [string, () => unknown, RegExp]> = [
    [
      "lengths",
      () => perform(collectives.all_reduce, [one[0]!, [Float32Array.of(1)]], {}),
      /rank 1 has 1 values/
    ],
    [
      "reduce",
      () => perform(collectives.all_reduce, one, { reduce: "max" }),
      /"max"; expected "sum" or "avg"/
    ],
    ["mixed reduce", () => perform(collectives.all_reduce, one, [{}, { reduce: "avg" }]), /rank 1 says avg/],
    ["ranks", () => perform(collectives.all_gather, one, { ranks: 3 }), /"ranks" is 3 in a group of 2/],
    [
      "indivisible",
      () => perform(collectives.reduce_scatter, one, { ranks: 3 }),
      /does not divide over 3 ranks/
    ],
    ["root", () => perform(collectives.broadcast, one, { root: 2 }), /root 2 in a group of 2/],
    [
      "counts",
      () =>
        perform(collectives.all_to_all, one, [
          { ranks: 2, sendCounts: "1,1", receiveCounts: "1,2" },
          { ranks: 2, sendCounts: "1,1", receiveCounts: "1,1" }
        ]),
      /rank 1 sends 1 rows to rank 0, which expects 2/
    ],
    [
      "total",
      () => perform(collectives.all_to_all, one, { ranks: 2, sendCounts: "1,2", receiveCounts: "1,2" }),
      /2 rows to send; counts "1,2"/
    ],
    [
      "syntax",
      () => perform(collectives.all_to_all, one, { ranks: 2, sendCounts: "1,-2", receiveCounts: "1,2" }),
      /whole numbers/
    ],
    [
      "two sources",
      () => perform(collectives.send_recv, one, { source: true }),
      /one source and one destination/
    ]
  ]
  for (const [name, call, message] of cases) it(name, () => expect(call).toThrow(message))
})

it("are found by name, and only they", () => {
  for (const name of Object.keys(collectives)) {
    expect(collectiveNamed(name)?.kind).toBe("collective")
    expect(kernelNamed(name)).toBe(collectiveNamed(name))
  }
  expect(collectiveNamed("copy")).toBeUndefined()
  expect(collectiveNamed("toString")).toBeUndefined()
})
