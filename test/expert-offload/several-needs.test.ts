// Calls of several experts, which may be more than there are slots: what every strategy finds and loads is what caches written from
// their papers do.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import { demand } from "../../testing/expert-offload.ts"
import { strategyOf } from "./facts.ts"
import { expertFlow, lfu, lru, previousToken, serveNaively, sieve, type NaiveCache } from "./naive-serving.ts"

const demands = demand({ maxLayers: 4, maxExperts: 7, maxSteps: 30 })
const slotsOf = fc.integer({ min: 1, max: 7 })
const scopes = fc.constantFrom("shared" as const, "per-layer" as const)
const windows = fc.integer({ min: 1, max: 4 })

/** As many pools as the scope has. */
const pools = (make: () => NaiveCache, scope: "shared" | "per-layer", layers: number) =>
  Array.from({ length: scope === "shared" ? 1 : layers }, make)

describe("on calls of several experts", () => {
  it.each(Object.entries({ lru, lfu, sieve }))("%s finds and loads what its paper's does", (name, make) => {
    const seen = { hits: 0, tight: 0 }
    fc.assert(
      fc.property(demands, slotsOf, scopes, (calls, slots, scope) => {
        const caches = pools(make, scope, calls.shape.layers)
        const counted = countLoads(calls, strategyOf({ name }, calls, { slots, scope }))
        expect(counted).toEqual(serveNaively(calls, { caches, slots }))
        seen.hits += counted.hits
        if (calls.calls.some(({ needed }) => needed.length > slots)) seen.tight++
      }),
      { numRuns: 200 }
    )
    expect(seen.hits).toBeGreaterThan(1000)
    expect(seen.tight).toBeGreaterThan(50)
  })

  it("previous-token fetches what the next calls needed last, and lets nobody leave who is wanted sooner", () => {
    let [fetched, useless] = [0, 0]
    fc.assert(
      fc.property(demands, slotsOf, scopes, windows, windows, (calls, slots, scope, reach, window) => {
        const settings = { name: "previous-token", reach, window }
        const counted = countLoads(calls, strategyOf(settings, calls, { slots, scope }))
        const caches = pools(lru, scope, calls.shape.layers)
        const ahead = previousToken(calls.shape, reach, window)
        expect(counted).toEqual(serveNaively(calls, { caches, slots, ...ahead }))
        fetched += counted.prefetches
        useless += counted.uselessPrefetches
      }),
      { numRuns: 200 }
    )
    expect(fetched).toBeGreaterThan(1000)
    expect(useless).toBeGreaterThan(100)
  })

  it.each(["cross-layer", "fixed-quota"])(
    "expertflow, %s, fetches whole steps as slots become free",
    (slots) => {
      let [fetched, useless] = [0, 0]
      fc.assert(
        fc.property(demands, slotsOf, windows, (calls, count, window) => {
          const quota = slots === "fixed-quota"
          const perfect = { name: "oracle", recall: 1, falsePositiveRate: 0 }
          const predictor = quota ? perfect : { name: "previous-token" }
          const settings = { name: "expertflow", slots, predictor, window }
          const facts = { slots: count, scope: quota ? ("per-layer" as const) : ("shared" as const) }
          const counted = countLoads(calls, strategyOf(settings, calls, facts))
          expect(counted).toEqual(serveNaively(calls, expertFlow(calls, count, window, quota)))
          fetched += counted.prefetches
          useless += counted.uselessPrefetches
        }),
        { numRuns: 200 }
      )
      expect(fetched).toBeGreaterThan(1000)
      // A perfect prediction fetches nothing in vain.
      if (slots === "fixed-quota") expect(useless).toBe(0)
      else expect(useless).toBeGreaterThan(100)
    }
  )
})
