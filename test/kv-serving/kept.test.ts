// Which tokens are kept: every method's kernels against a straightforward reading of its definition, on generated attention.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { planChoices } from "../../core/algorithms/kv-serving/choices.ts"
import { roomsOf, type LayerChoice } from "../../core/algorithms/kv-serving/choice.ts"
import { cacheMethods, type CacheSettings } from "../../core/algorithms/kv-serving/methods.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import { operand, type Operand } from "../../core/kernels/kernel.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { keptBy, type Layer } from "./kept-oracle.ts"
import { tinyModel } from "./tiny-llama.ts"

const model = tinyModel({ layers: 4, heads: 4, kvHeads: 2 })
const [width, kvWidth, headWidth] = [16, 8, 4]

/** Random numbers, or -1, 0 and 1: then many scores are equal. */
const attention = (random: Random, time: number, integers: boolean): Layer => {
  const number = () => (integers ? random.below(3) - 1 : Math.fround(4 * random.uniform() - 2))
  const rows = (size: number) =>
    Array.from({ length: time }, () => Float64Array.from({ length: size }, number))
  return { q: rows(width), k: rows(kvWidth), heads: 4, kvHeads: 2, headWidth }
}

/** Runs a choice's kernels; the list of each key/value head, without its end. */
const chosen = (choice: LayerChoice, { q, k }: Layer): ReadonlyArray<ReadonlyArray<number>> => {
  const time = k.length
  const everything = Array.from({ length: time }, (_, t) => t)
  if (choice.kind !== "choose") return [everything, everything]
  const flat = (rows: ReadonlyArray<Float64Array>) => Float32Array.from(rows.flatMap((row) => [...row]))
  let previous: readonly [Operand, TensorData] | undefined
  for (const { kernel, attributes, reads } of choice.calls) {
    const inputs: ReadonlyArray<readonly [Operand, TensorData]> =
      reads === "nothing"
        ? []
        : reads === "previous"
          ? [previous!]
          : [
              [operand([1, time, width], "float32"), flat(q)],
              [operand([1, time, kvWidth], "float32"), flat(k)]
            ]
    const operands = inputs.map(([one]) => one)
    const output = operand(
      kernels[kernel].shapes(operands, attributes)![0]!,
      kernels[kernel].outputDtypes[0]!
    )
    const data =
      output.dtype === "int32" ? new Int32Array(output.elements) : new Float32Array(output.elements)
    evaluate(
      kernels[kernel],
      operands,
      inputs.map(([, data]) => data),
      [output],
      [data],
      attributes
    )
    previous = [output, data]
  }
  const [{ shape }, data] = previous!
  const lists = Array.from({ length: shape[0]! }, (_, list) =>
    Array.from(data.subarray(list * shape[1]!, (list + 1) * shape[1]!)).filter((token) => token >= 0)
  )
  return lists.length === 1 ? [lists[0]!, lists[0]!] : lists
}

describe("tokens that stay", () => {
  for (const method of cacheMethods) {
    it(`${method}: as its definition says, in every layer and head`, () => {
      const seen = { some: 0, ties: 0, all: 0, short: 0 }
      fc.assert(
        fc.property(
          cacheSettings({ methods: [method] }),
          fc.integer({ min: 1, max: 40 }),
          fc.boolean(),
          fc.nat(),
          (settings, time, integers, seed) => {
            const random = new Random(seed)
            const layers = Array.from({ length: model.layers }, () => attention(random, time, integers))
            const choices = planChoices(settings, model, time)
            const rooms = roomsOf(choices, time)
            for (const [index, choice] of choices.entries()) {
              const leader = choice.kind === "as" ? choice.layer : index
              const kept = chosen(choices[leader]!, layers[leader]!)
              expect(kept).toEqual(keptBy(settings, layers[leader]!, { layer: leader, layers: model.layers }))
              const own = choices[leader]!
              for (const list of kept) {
                expect(list.length).toBeLessThanOrEqual(rooms[index]!)
                if (own.kind === "choose" && own.exact) expect(list.length).toBe(own.room)
              }
              if (own.kind === "all") seen.all++
              else if (integers) seen.ties++
              else seen.some++
              if (kept[0]!.length < rooms[index]!) seen.short++
            }
          }
        ),
        { numRuns: 60 }
      )
      expect(seen.all).toBeGreaterThan(5)
      if (method === "full") return
      expect(Math.min(seen.some, seen.ties)).toBeGreaterThan(50)
      if (method === "chunkkv" || method === "shotkv") expect(seen.short).toBeGreaterThan(10)
    })
  }

  it("kvpress counts chunks in floating point: one too few of 10, 20, 50, 100, 200 at a ratio of 0.9 or 0.8", () => {
    const kept = (chunks: number, keep: number): number => {
      const settings: CacheSettings = {
        name: "chunkkv",
        rule: "kvpress",
        keep,
        chunk: 20,
        window: 1,
        kernel: 1,
        pooling: "avg",
        reuse: 1
      }
      const [choice] = planChoices(settings, model, chunks * 20)
      return (choice as Extract<LayerChoice, { kind: "choose" }>).room / 20
    }
    // max(1, int(n * (1 - 0.9))) in Python
    expect([10, 20, 50, 100, 200].map((n) => kept(n, 0.1))).toEqual([1, 1, 4, 9, 19])
    expect([10, 20, 50, 100, 200].map((n) => kept(n, 0.2))).toEqual([1, 3, 9, 19, 39])
    expect([10, 20, 50].map((n) => kept(n, 0.5))).toEqual([5, 10, 25])
  })

  it("followers use their leader's choice", () => {
    const settings: CacheSettings = {
      name: "chunkkv",
      rule: "paper",
      keep: 0.5,
      kernel: 5,
      pooling: "avg",
      reuse: 3
    }
    expect(planChoices(settings, model, 100).map((c) => (c.kind === "as" ? c.layer : c.kind))).toEqual([
      "choose",
      0,
      0,
      "choose"
    ])
  })

  it("PyramidKV gives low layers more; the mean over layers is SnapKV's", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 40 }),
        fc.integer({ min: 100, max: 5000 }),
        fc.integer({ min: 10, max: 99 }),
        fc.constantFrom(1, 5, 20),
        (layers, time, percent, beta) => {
          const settings: CacheSettings = {
            name: "pyramidkv",
            keep: percent / 100,
            window: 8,
            kernel: 5,
            pooling: "avg",
            beta
          }
          const rooms = roomsOf(planChoices(settings, tinyModel({ layers }), time), time)
          for (let l = 1; l < layers; l++) expect(rooms[l]!).toBeLessThanOrEqual(rooms[l - 1]!)
          const mean = rooms.reduce((sum, room) => sum + room, 0) / layers
          expect(Math.abs(mean - Math.floor((percent / 100) * time + 1e-9))).toBeLessThanOrEqual(0.5)
        }
      )
    )
  })
})
