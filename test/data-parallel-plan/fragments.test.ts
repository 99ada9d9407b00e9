import * as fc from "fast-check"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import {
  type FragmentPlan,
  leavesAfter,
  type FragmentSettings,
  planFragments
} from "../../core/algorithms/data-parallel/plan/fragments.ts"

/** Index of the fragment that is sent when `step` inner steps are complete. */
const fragmentSentAfter = (plan: FragmentPlan, step: number): number | undefined => {
  const index = step < 1 ? -1 : plan.fragments.findIndex((fragment) => leavesAfter(plan, fragment, step))
  return index < 0 ? undefined : index
}

/** Index of the fragment whose averaged update is applied when `step` inner steps are complete: sent tau steps before. */
const fragmentAppliedAfter = (plan: FragmentPlan, step: number): number | undefined =>
  fragmentSentAfter(plan, step - plan.delaySteps)

const settings: FragmentSettings = {
  layers: 24,
  period: 100,
  layersPerFragment: 3,
  pattern: "strided",
  offsets: "rounded",
  delaySteps: 1,
  localShare: 0.5
}
const planned = (changes: Partial<FragmentSettings> = {}) =>
  Result.getOrThrow(planFragments({ ...settings, ...changes }))
const refused = (changes: Partial<FragmentSettings>) =>
  Result.match(planFragments({ ...settings, ...changes }), {
    onSuccess: () => "accepted",
    onFailure: ({ field, message }) => `${field}: ${message}`
  })

describe("fragments", () => {
  it("the 1B model of Streaming DiLoCo: 24 layers in 8 strided fragments of 3, H = 100", () => {
    const { fragments, peakShare } = planned()
    expect(fragments.map(({ layers }) => layers)).toEqual(
      Array.from({ length: 8 }, (_, p) => [p, p + 8, p + 16])
    )
    // round((p+1) * 12.5)
    expect(fragments.map(({ sendAfterStep }) => sendAfterStep)).toEqual([13, 25, 38, 50, 63, 75, 88, 100])
    expect(peakShare).toBe(1 / 8)
  })

  it("DiLoCo is one fragment, sent and applied at the end of the period", () => {
    const plan = planned({ layersPerFragment: 24, delaySteps: 0, localShare: 0 })
    expect(plan.fragments).toHaveLength(1)
    expect(plan.peakShare).toBe(1)
    expect([99, 100, 101, 200].map((step) => fragmentSentAfter(plan, step))).toEqual([
      undefined,
      0,
      undefined,
      0
    ])
    expect(fragmentAppliedAfter(plan, 100)).toBe(0)
  })

  it("sequential fragments, the last one shorter", () => {
    const { fragments } = planned({ layers: 7, pattern: "sequential" })
    expect(fragments.map(({ layers }) => layers)).toEqual([[0, 1, 2], [3, 4, 5], [6]])
    expect(planned({ layers: 7 }).fragments.map(({ layers }) => layers)).toEqual([
      [0, 3, 6],
      [1, 4],
      [2, 5]
    ])
  })

  it("deals layers that stay together as one", () => {
    const together = [[0, 1, 2, 6], [3, 4], [5]]
    const plan = planned({ layers: 7, together, layersPerFragment: 2 })
    expect(plan.fragments.map(({ layers }) => layers)).toEqual([
      [0, 1, 2, 5, 6],
      [3, 4]
    ])
    expect(plan.peakShare).toBe(2 / 3)
    expect(planned({ layers: 7, together, count: 3 }).fragments.map(({ layers }) => layers)).toEqual(together)
    expect(refused({ layers: 7, together, layersPerFragment: 4 })).toMatch(
      /^layersPerFragment: .*from 1 to the 3 blocks/u
    )
  })

  it("sends wrap around the period and are applied tau steps later", () => {
    const plan = planned({ layers: 2, layersPerFragment: 1, period: 6, delaySteps: 2 })
    const steps = Array.from({ length: 13 }, (_, step) => step)
    expect(steps.map((step) => fragmentSentAfter(plan, step) ?? -1)).toEqual([
      -1, -1, -1, 0, -1, -1, 1, -1, -1, 0, -1, -1, 1
    ])
    expect(steps.map((step) => fragmentAppliedAfter(plan, step) ?? -1)).toEqual([
      -1, -1, -1, -1, -1, 0, -1, -1, 1, -1, -1, 0, -1
    ])
  })

  it("refuses what cannot be honoured, naming the field and what would be accepted", () => {
    expect(refused({ layers: 0 })).toMatch(/^layers:/u)
    expect(refused({ period: 1.5 })).toMatch(/^period:/u)
    expect(refused({ period: 7, delaySteps: 0 })).toMatch(/^period: .*at least 8/u)
    expect(refused({ offsets: "even" })).toMatch(/^period: .*multiple of the 8 fragments/u)
    expect(refused({ layersPerFragment: 25 })).toMatch(/^layersPerFragment: .*24 layers/u)
    // 8 fragments in 100 steps are 12 or 13 steps apart.
    expect(refused({ delaySteps: 12 })).toMatch(/^delaySteps: .*from 0 to 11/u)
    expect(planned({ delaySteps: 11 }).delaySteps).toBe(11)
    expect(refused({ delaySteps: -1 })).toMatch(/^delaySteps:/u)
    expect(refused({ delaySteps: 1.5 })).toMatch(/^delaySteps:/u)
    // fragments that leave a step apart: one is applied as it comes
    const apart = { period: 8, delaySteps: undefined }
    expect(planned(apart).delaySteps).toBe(0)
    expect(refused({ ...apart, delaySteps: 1 })).toMatch(
      /^delaySteps: .*expected 0: fragments leave a step apart/u
    )
    // where one gap alone is a step, as rounding leaves it, too
    expect(planned({ ...apart, period: 9 }).delaySteps).toBe(0)
    for (const period of [16, 100]) expect(planned({ ...apart, period }).delaySteps).toBe(1)
    expect(refused({ localShare: 1.1 })).toMatch(/^localShare:/u)
    expect(refused({ localShare: Number.NaN })).toMatch(/^localShare:/u)
  })

  it("every layer is sent once per period, with at most one fragment in flight", () => {
    let accepted = 0
    let inFlight = 0
    fc.assert(
      fc.property(
        fc.record({
          layers: fc.integer({ min: 1, max: 40 }),
          period: fc.integer({ min: 1, max: 60 }),
          layersPerFragment: fc.integer({ min: 1, max: 10 }),
          pattern: fc.constantFrom("strided" as const, "sequential" as const),
          offsets: fc.constantFrom("rounded" as const, "even" as const),
          delaySteps: fc.nat(6),
          localShare: fc.constantFrom(0, 0.5, 1)
        }),
        (drawn) => {
          const result = planFragments(drawn)
          if (Result.isFailure(result)) return
          accepted++
          const plan = result.success
          expect(plan.fragments.flatMap(({ layers }) => layers).toSorted((a, b) => a - b)).toEqual(
            Array.from({ length: drawn.layers }, (_, layer) => layer)
          )
          const sent = Array.from({ length: drawn.layers }, () => 0)
          let open = 0
          for (let step = 1; step <= 2 * drawn.period; step++) {
            // What was sent tau >= 1 steps ago comes back before anything new goes out.
            const applied = fragmentAppliedAfter(plan, step)
            if (applied !== undefined && plan.delaySteps > 0) open--
            const index = fragmentSentAfter(plan, step)
            if (index === undefined) continue
            if (plan.delaySteps > 0) open++
            expect(open).toBeLessThanOrEqual(1)
            if (open === 1) inFlight++
            expect(plan.fragments[index]!.layers.length).toBeLessThanOrEqual(drawn.layersPerFragment)
            for (const layer of plan.fragments[index]!.layers) sent[layer] = sent[layer]! + 1
          }
          expect(sent).toEqual(sent.map(() => 2))
        }
      ),
      { numRuns: 1000 }
    )
    expect(accepted).toBeGreaterThan(150)
    expect(inFlight).toBeGreaterThan(100)
  })
})
