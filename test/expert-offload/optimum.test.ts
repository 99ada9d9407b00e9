// The offline optimum against exhaustive search over all schedules, prefetching ones included, and every strategy against
// the optimum.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import { fewestLoads } from "../../core/algorithms/expert-offload/optimum.ts"
import { fixedScope, makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import { demand, offloadSettings, violationsOf } from "../../testing/expert-offload.ts"
import { factsOf, streamOf, strategyOf } from "./facts.ts"

const bits = (mask: number): number => {
  let count = 0
  for (; mask !== 0; mask &= mask - 1) count++
  return count
}

const maskOf = (ids: ReadonlyArray<number>): number => ids.reduce((mask, id) => mask | (1 << id), 0)

/** Cheapest way from each set of residents to each, one load at a time; knows nothing of requests or policies. */
const search = (
  { shape, calls }: Demand,
  slots: number,
  moves: (
    state: number,
    pending: number
  ) => ReadonlyArray<readonly [state: number, pending: number, cost: 0 | 1]>
): number => {
  const ids = shape.layers * shape.experts
  let frontier = new Map<number, number>([[0, 0]])
  for (const { needed } of calls) {
    // 0-1 breadth-first over (residents, still pending), from all states the last call may have left.
    const key = (state: number, pending: number) => pending * 2 ** ids + state
    const cost = new Map<number, number>()
    const buckets: Array<Array<readonly [number, number]>> = []
    const reach = (state: number, pending: number, at: number) => {
      const k = key(state, pending)
      if ((cost.get(k) ?? Infinity) <= at) return
      cost.set(k, at)
      ;(buckets[at] ??= []).push([state, pending])
    }
    for (const [state, at] of frontier) reach(state, maskOf(needed), at)
    const after = new Map<number, number>()
    for (let at = 0; at < buckets.length; at++) {
      const bucket = buckets[at] ?? []
      for (let i = 0; i < bucket.length; i++) {
        const [state, pending] = bucket[i]!
        if (cost.get(key(state, pending)) !== at) continue
        if (pending === 0 && !after.has(state)) after.set(state, at)
        for (const [next, left, extra] of moves(state, pending)) {
          if (bits(next) > slots) throw new Error("a move beyond the slots")
          reach(next, left, at + extra)
        }
      }
    }
    frontier = after
  }
  return Math.min(...frontier.values())
}

/** Every load takes a slot; a slot is free to take if it is empty or its expert is not pending. */
const forcedSearch = (demand: Demand, slots: number): number => {
  const ids = demand.shape.layers * demand.shape.experts
  return search(demand, slots, (state, pending) => {
    const next: Array<readonly [number, number, 0 | 1]> = []
    for (let id = 0; id < ids; id++) {
      const bit = 1 << id
      if ((state & bit) !== 0) {
        if ((pending & bit) !== 0) next.push([state, pending & ~bit, 0])
        continue
      }
      if (bits(state) < slots) next.push([state | bit, pending, 1])
      for (let other = 0; other < ids; other++) {
        const out = 1 << other
        if ((state & out) !== 0 && (pending & out) === 0) next.push([(state & ~out) | bit, pending, 1])
      }
    }
    return next
  })
}

/** Beside the slots an expert may be loaded, computed and forgotten; whoever is resident may be dropped at any time. */
const bypassSearch = (demand: Demand, slots: number): number => {
  const ids = demand.shape.layers * demand.shape.experts
  return search(demand, slots, (state, pending) => {
    const next: Array<readonly [number, number, 0 | 1]> = []
    for (let id = 0; id < ids; id++) {
      const bit = 1 << id
      if ((state & bit) !== 0) {
        if ((pending & bit) !== 0) next.push([state, pending & ~bit, 0])
        next.push([state & ~bit, pending, 0])
        continue
      }
      if ((pending & bit) !== 0) next.push([state, pending & ~bit, 1])
      if (bits(state) < slots) {
        next.push([state | bit, pending, 1])
        if ((pending & bit) !== 0) next.push([state | bit, pending & ~bit, 1])
      }
    }
    return next
  })
}

/** What a call needs is there together; whoever else was there may stay. */
const pinnedSearch = ({ shape, calls }: Demand, slots: number): number => {
  const all = 2 ** (shape.layers * shape.experts)
  let costs = new Map<number, number>([[0, 0]])
  for (const { needed } of calls) {
    const wanted = maskOf(needed)
    const after = new Map<number, number>()
    for (const [state, cost] of costs) {
      const paid = cost + bits(wanted & ~state)
      for (let next = 0; next < all; next++) {
        if ((next & wanted) !== wanted || (next & ~(state | wanted)) !== 0 || bits(next) > slots) continue
        after.set(next, Math.min(paid, after.get(next) ?? Infinity))
      }
    }
    costs = after
  }
  return Math.min(...costs.values())
}

const small = fc.oneof(
  demand({ maxLayers: 2, maxExperts: 3, maxSteps: 4 }),
  demand({ maxLayers: 1, maxExperts: 5, maxSteps: 7 })
)
const slotCounts = fc.integer({ min: 1, max: 4 })

describe("the optimum", () => {
  it("equals exhaustive search over all schedules", () => {
    let contended = 0
    let apart = 0
    fc.assert(
      fc.property(small, slotCounts, (instance, slots) => {
        const bypass = fewestLoads(instance, slots, "shared", "bypass")
        const forced = fewestLoads(instance, slots, "shared", "forced")
        const distinct = new Set(instance.calls.flatMap(({ needed }) => needed)).size
        if (bypass > distinct) contended++
        if (forced > bypass) apart++
        expect(bypass).toBe(bypassSearch(instance, slots))
        expect(forced).toBe(forcedSearch(instance, slots))
      }),
      { numRuns: 300 }
    )
    expect(contended).toBeGreaterThan(40)
    expect(apart).toBeGreaterThan(10)
  })

  it("equals exhaustive search where what a call needs stays until it has ended", () => {
    let dearer = 0
    let fitting = 0
    fc.assert(
      fc.property(small, slotCounts, (instance, slots) => {
        const pinned = fewestLoads(instance, slots, "shared", "pinned")
        const forced = fewestLoads(instance, slots, "shared", "forced")
        const fits = instance.calls.every(({ needed }) => needed.length <= slots)
        expect(pinned).toBe(fits ? pinnedSearch(instance, slots) : forced)
        expect(pinned).toBeGreaterThanOrEqual(forced)
        if (fits) fitting++
        if (pinned > forced) dearer++
      }),
      { numRuns: 300 }
    )
    expect(fitting).toBeGreaterThan(100)
    expect(dearer).toBeGreaterThan(5)
  })

  it("is what the strategy of that name loads", () => {
    fc.assert(
      fc.property(
        demand(),
        slotCounts,
        fc.constantFrom("shared" as const, "per-layer" as const),
        fc.constantFrom("bypass" as const, "forced" as const),
        (instance, slots, scope, admission) => {
          const strategy = strategyOf({ name: "optimum", admission }, instance, { slots, scope })
          expect(countLoads(instance, strategy).loads).toBe(fewestLoads(instance, slots, scope, admission))
        }
      )
    )
  })

  it("is Belady's textbook count on a stream of single references", () => {
    // The string of Silberschatz, Galvin and Gagne, chapter on page replacement: 9 faults with 3 frames.
    const references = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1]
    expect(fewestLoads(streamOf(references, 8), 3, "shared", "forced")).toBe(9)
  })
})

describe("every strategy", () => {
  it("never loads less than the optimum, and keeps the laws of a cache", () => {
    const names = new Map<string, number>()
    let useless = 0
    fc.assert(
      fc.property(
        demand(),
        offloadSettings(),
        slotCounts,
        fc.constantFrom("shared" as const, "per-layer" as const),
        (instance, settings, slots, given) => {
          const scope = fixedScope(settings) ?? given
          const facts = factsOf(instance, { slots, scope })
          expect(violationsOf(instance, makeStrategy(settings, facts))).toEqual([])
          const counted = countLoads(instance, makeStrategy(settings, facts))
          const needs = instance.calls.reduce((sum, { needed }) => sum + needed.length, 0)
          expect(counted.needs).toBe(needs)
          expect(counted.loads).toBe(needs - counted.hits + counted.prefetches)
          expect(counted.uselessPrefetches).toBeLessThanOrEqual(counted.prefetches)
          expect(counted.loads).toBeGreaterThanOrEqual(fewestLoads(instance, slots, scope))
          if (counted.prefetches > 0) names.set(settings.name, (names.get(settings.name) ?? 0) + 1)
          useless += counted.uselessPrefetches
        }
      ),
      { numRuns: 3000 }
    )
    // All prefetching algorithms do prefetch, now and then in vain.
    expect([...names.keys()].toSorted()).toEqual([
      "expertflow",
      "layer-ring",
      "moe-infinity",
      "predict-next",
      "previous-layer",
      "previous-token"
    ])
    expect(useless).toBeGreaterThan(100)
  })
})
