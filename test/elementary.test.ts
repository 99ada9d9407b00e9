// Elementary functions of our own, held to what is known of them exactly, and to the engine's within rounding.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { cosine, exp, log, power } from "../core/elementary.ts"

/** Distance in units of the last place of `expected`. */
const ulps = (actual: number, expected: number): number => {
  if (Object.is(actual, expected)) return 0
  const unit = Math.max(Number.MIN_VALUE, 2 ** (Math.floor(Math.log2(Math.abs(expected))) - 52))
  return Math.abs(actual - expected) / unit
}

const positive = fc.double({ min: Number.MIN_VALUE, max: Number.MAX_VALUE, noNaN: true })

describe("log", () => {
  it("is the engine's within its rounding and ours, of every size", () => {
    let subnormal = 0
    fc.assert(
      fc.property(positive, (x) => {
        if (x < 2.2250738585072014e-308) subnormal++
        expect(ulps(log(x), Math.log(x))).toBeLessThanOrEqual(3)
      }),
      { numRuns: 2000, examples: [[5e-324], [1e-310], [1], [2], [Math.SQRT2], [Number.MAX_VALUE]] }
    )
    expect(subnormal).toBeGreaterThan(0)
  })

  it("has its limits", () => {
    expect([log(1), log(0), log(Infinity)]).toEqual([0, -Infinity, Infinity])
    expect(log(-1)).toBeNaN()
    expect(log(NaN)).toBeNaN()
  })
})

describe("exp", () => {
  it("is the engine's within its rounding and ours", () => {
    fc.assert(
      fc.property(fc.double({ min: -708, max: 709.7, noNaN: true }), (x) => {
        expect(ulps(exp(x), Math.exp(x))).toBeLessThanOrEqual(3)
      }),
      { numRuns: 2000, examples: [[0], [1], [-1], [709.7], [-708], [0.34657359], [-0.34657359]] }
    )
  })

  it("has its limits, and falls to nothing by way of the small numbers", () => {
    expect([exp(0), exp(710), exp(-746), exp(Infinity), exp(-Infinity)]).toEqual([
      1,
      Infinity,
      0,
      Infinity,
      0
    ])
    expect(exp(NaN)).toBeNaN()
    expect(exp(-740)).toBeGreaterThan(0)
    expect(Math.abs(exp(-740) / Math.exp(-740) - 1)).toBeLessThan(1e-6)
  })
})

describe("cosine", () => {
  it("is that of half turns, to the last places", () => {
    expect([cosine(0), cosine(0.5), cosine(1)].map(Math.abs)).toEqual(
      [1, 0, 1].map((x) => expect.closeTo(x, 15))
    )
    for (let i = 0; i <= 1000; i++)
      expect(Math.abs(cosine(i / 1000) - Math.cos((Math.PI * i) / 1000))).toBeLessThan(1e-15)
  })
})

describe("power", () => {
  it("is exact where a factor does nothing, and near products elsewhere", () => {
    expect([power(0, 0), power(7, 0), power(1, 3.7), power(0, 2)]).toEqual([1, 1, 1, 0])
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 1000 }),
        fc.double({ min: -4, max: 4, noNaN: true }),
        (base, x) => {
          expect(Math.abs(power(base, x) / base ** x - 1)).toBeLessThan(1e-14)
          expect(Math.abs(power(base, x) * power(base, -x) - 1)).toBeLessThan(1e-14)
        }
      )
    )
  })
})

it("says the same to the last bit wherever it runs", () => {
  // Of a run on x64; any other machine must give these.
  const hash = (f: (x: number) => number): string => {
    const view = new DataView(new ArrayBuffer(8))
    let [h, x] = [0, 0.001]
    for (let i = 0; i < 2000; i++, x *= 1.0071) {
      view.setFloat64(0, f(x))
      h = Math.imul(h ^ view.getUint32(0), 0x01000193) ^ view.getUint32(4)
    }
    return (h >>> 0).toString(16)
  }
  expect([hash(log), hash((x) => exp(x / 100)), hash((x) => power(x, 0.7))]).toEqual([
    "2e2cc3b9",
    "1df9947b",
    "a88f3279"
  ])
})
