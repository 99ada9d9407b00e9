// Replacement policies against caches written from their papers, and against closed forms under independent references.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Arc } from "../../core/algorithms/expert-offload/cache/arc.ts"
import { cheHitRatio, topHitRatio } from "../../core/algorithms/expert-offload/closed-forms.ts"
import { zipf } from "../../core/algorithms/expert-offload/zipf.ts"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import { fewestLoads } from "../../core/algorithms/expert-offload/optimum.ts"
import { Random } from "../../core/random.ts"
import { strategyOf, streamOf } from "./facts.ts"
import { naiveArc, naiveLfu, naiveLru, naiveS3Fifo, naiveSieve } from "./naive-caches.ts"

const naive = { lru: naiveLru, lfu: naiveLfu, arc: naiveArc, "s3-fifo": naiveS3Fifo, sieve: naiveSieve }

const loadsOf = (name: string, references: ReadonlyArray<number>, experts: number, slots: number): number => {
  const demand = streamOf(references, experts)
  return countLoads(demand, strategyOf({ name }, demand, { slots })).loads
}

describe("on single references", () => {
  // A few favourites, a scan now and then: hits, ghosts and promotions all happen.
  const references = fc
    .array(
      fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: 0, max: 5 }).map((id) => [id]) },
        { weight: 2, arbitrary: fc.integer({ min: 0, max: 23 }).map((id) => [id, id]) },
        {
          weight: 1,
          arbitrary: fc
            .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 2, max: 12 }))
            .map(([from, length]) => Array.from({ length }, (_, i) => (from + i) % 24))
        }
      ),
      { minLength: 1, maxLength: 80 }
    )
    .map((pieces) => pieces.flat())

  it.each(Object.entries(naive))("%s misses when its paper's pseudo-code does", (name, misses) => {
    let hits = 0
    let evictions = 0
    fc.assert(
      fc.property(references, fc.integer({ min: 1, max: 22 }), (stream, slots) => {
        const expected = misses(stream, slots)
        expect(loadsOf(name, stream, 24, slots)).toBe(expected)
        hits += stream.length - expected
        evictions += Math.max(0, expected - slots)
      }),
      { numRuns: 300 }
    )
    expect(hits).toBeGreaterThan(1000)
    expect(evictions).toBeGreaterThan(1000)
  })
})

it("arc's target moves once for a request, however often it asks in vain before, and for none that gives up", () => {
  let moved = 0
  const reference = fc.tuple(
    fc.integer({ min: 0, max: 9 }),
    fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 3 })
  )
  fc.assert(
    fc.property(
      fc.array(reference, { minLength: 40, maxLength: 120 }),
      fc.integer({ min: 1, max: 6 }),
      (stream, slots) => {
        const arc = new Arc(slots)
        const held = new Set<number>()
        let misses = 0
        for (const [id, inVain] of stream) {
          if (held.has(id)) {
            arc.hit(id)
            continue
          }
          misses++
          if (held.size === slots) {
            for (const other of [id, ...inVain, id])
              if (!held.has(other)) expect(arc.replace(other, () => false)).toBe("wait")
            const leaves = arc.replace(id, () => true) as number
            held.delete(leaves)
            arc.evicted(leaves)
          }
          held.add(id)
          arc.loaded(id, false)
        }
        const references = stream.map(([id]) => id)
        expect(misses).toBe(naiveArc(references, slots))
        moved += stream.length - misses
      }
    ),
    { numRuns: 300 }
  )
  expect(moved).toBeGreaterThan(1000)
})

describe("under independent references", () => {
  // 60,000 references each; the closed forms' values are those of a computation that shares no code with this one.
  const cases = [
    { experts: 64, s: 1, slots: 16, che: 0.5923, top: 0.7126, belady: 0.7771 },
    { experts: 64, s: 0.2, slots: 16, che: 0.2587, top: 0.3218, belady: 0.5754 },
    { experts: 128, s: 1.5, slots: 16, che: 0.8047, top: 0.8703, belady: 0.8867 }
  ]

  it.each(cases)("$experts experts, Zipf $s", ({ experts, s, slots, che, top, belady }) => {
    const p = zipf(experts, s)
    expect(cheHitRatio(p, slots)).toBeCloseTo(che, 4)
    expect(topHitRatio(p, slots)).toBeCloseTo(top, 4)
    const references = independent(p, 60_000)
    const ratio = (loads: number) => 1 - loads / references.length
    // Three standard deviations of a ratio over 60,000 draws are below 0.0062.
    expect(Math.abs(ratio(loadsOf("lru", references, experts, slots)) - che)).toBeLessThan(0.0065)
    expect(Math.abs(ratio(loadsOf("static-popular", references, experts, slots)) - top)).toBeLessThan(0.0065)
    expect(Math.abs(ratio(loadsOf("lfu", references, experts, slots)) - top)).toBeLessThan(0.015)
    const optimum = ratio(fewestLoads(streamOf(references, experts), slots, "shared", "forced"))
    expect(Math.abs(optimum - belady)).toBeLessThan(0.0065)
  })

  it("Che's approximation is exact at the ends", () => {
    expect(cheHitRatio(zipf(8, 1), 8)).toBe(1)
    expect(topHitRatio(zipf(8, 1), 8)).toBeCloseTo(1, 12)
  })
})

const independent = (p: Float64Array, count: number): ReadonlyArray<number> => {
  const random = new Random(7)
  return Array.from({ length: count }, () => {
    let draw = random.uniform()
    let id = 0
    while (id < p.length - 1 && draw >= p[id]!) draw -= p[id++]!
    return id
  })
}
