import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { crossings, reaches, valueAt, type Curve } from "../../sim/report/crossover.ts"

const sample = (x: ReadonlyArray<number>, f: (x: number) => number): Curve => ({ x, y: x.map(f) })

describe("crossings", () => {
  it("is exact where both curves are power laws", () => {
    // 8/x and 1: they meet at x = 8, between the samples 5 and 10.
    const x = [1, 2, 5, 10, 20]
    const [crossing, ...more] = crossings(
      sample(x, (at) => 8 / at),
      sample(x, () => 1)
    )
    expect(more).toEqual([])
    expect(crossing!.x).toBeCloseTo(8, 12)
    expect(crossing!.y).toBeCloseTo(1, 12)
    expect(crossing!.firstIsLowerBefore).toBe(false)
  })

  it("finds the closed form's crossing of any two power laws between any samples", () => {
    let found = 0
    const exponent = fc.double({ min: -3, max: 3, noNaN: true })
    const grid = fc
      .uniqueArray(fc.integer({ min: -600, max: 600 }), { minLength: 2, maxLength: 20 })
      .map((logs) => logs.toSorted((a, b) => a - b).map((log) => 10 ** (log / 100)))
    fc.assert(
      fc.property(grid, exponent, exponent, fc.double({ min: -4, max: 4, noNaN: true }), (x, a, b, log) => {
        fc.pre(Math.abs(a - b) > 0.05)
        // x^a and c x^b meet at x = c^(1/(a-b)).
        const c = 10 ** log
        const meet = c ** (1 / (a - b))
        const first = sample(x, (at) => at ** a)
        const second = sample(x, (at) => c * at ** b)
        // Only where they are apart, on both sides, by more than the tolerance.
        const apart = (at: number) => Math.abs(Math.log(at ** a / (c * at ** b))) > Math.log(1.01)
        const expected = x.some((at) => at < meet && apart(at)) && x.some((at) => at > meet && apart(at))
        const result = crossings(first, second)
        expect(result.length).toBe(expected ? 1 : 0)
        if (!expected) return
        found++
        expect(result[0]!.x / meet).toBeCloseTo(1, 6)
        expect(result[0]!.y / meet ** a).toBeCloseTo(1, 6)
        expect(result[0]!.firstIsLowerBefore).toBe(a > b)
        expect(crossings(second, first)[0]!.firstIsLowerBefore).toBe(a < b)
      }),
      { numRuns: 500 }
    )
    expect(found).toBeGreaterThan(50)
  })

  it("does not call curves that merge crossing, whatever rounding makes of them", () => {
    const x = [1, 10, 100, 1000]
    expect(crossings({ x, y: [10, 2, 1.0001, 1] }, { x, y: [5, 1.5, 1, 1.0001] })).toEqual([])
  })

  it("finds a crossing once where curves run together and then part on the other side", () => {
    const x = [1, 10, 100, 1000]
    const [crossing, ...more] = crossings({ x, y: [4, 2, 2, 3] }, { x, y: [8, 2, 2, 2] })
    expect(more).toEqual([])
    // Equal from 10 to 100: the middle, on a log scale.
    expect(crossing!.x).toBeCloseTo(Math.sqrt(1000), 9)
    // They touch and part on the side they came from.
    expect(crossings({ x, y: [4, 2, 2, 1] }, { x, y: [8, 2, 2, 3] })).toEqual([])
  })

  it("finds every crossing of curves that cross more than once", () => {
    const x = [1, 2, 4, 8]
    const found = crossings({ x, y: [1, 3, 1, 3] }, { x, y: [2, 2, 2, 2] })
    expect(found.map(({ firstIsLowerBefore }) => firstIsLowerBefore)).toEqual([true, false, true])
  })

  it("compares where both are known, and passes over what no log scale holds", () => {
    const first = { x: [1, 2, 4, 8, Infinity], y: [8, 4, 2, 1, 0.5] }
    const second = { x: [0, 1, 3, 8, Infinity], y: [1, 2, 2, 2, 2] }
    expect(crossings(first, second).map(({ x }) => x)).toHaveLength(1)
    expect(crossings({ x: [], y: [] }, second)).toEqual([])
    expect(crossings({ x: [1, 2], y: [0, 1] }, { x: [1, 2], y: [1, 0] })).toEqual([])
  })
})

describe("reaches", () => {
  const curve = sample([1, 10, 100], (x) => 100 / x)

  it("interpolates to where the curve stays at or below", () => {
    expect(reaches(curve, 5)).toBeCloseTo(20, 9)
    expect(reaches(curve, 1)).toBeCloseTo(100, 9)
    expect(reaches(curve, 0.5)).toBeUndefined()
    expect(reaches(curve, 1000)).toBe(1)
    expect(reaches({ x: [], y: [] }, 1)).toBeUndefined()
  })

  it("takes the last time where the curve comes back up", () => {
    const x = reaches({ x: [1, 10, 100, 1000], y: [1, 8, 8, 1] }, 2)!
    expect(x).toBeGreaterThan(100)
    expect(x).toBeLessThan(1000)
  })

  it("agrees with the curve's own value there", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 2, maxLength: 12 }),
        fc.double({ min: 0.01, max: 100, noNaN: true }),
        (y, target) => {
          const curve = { x: y.map((_, i) => 2 ** i), y }
          const at = reaches(curve, target)
          if (at === undefined) {
            expect(y.at(-1)).toBeGreaterThan(target)
            return
          }
          expect(valueAt(curve, at)! / target).toBeLessThanOrEqual(1 + 1e-6)
          curve.x.forEach((x, i) => {
            if (x >= at * (1 + 1e-9)) expect(y[i]! / target).toBeLessThanOrEqual(1 + 1e-6)
          })
        }
      )
    )
  })
})
