// Numbers drawn by counting: how they are distributed, that neighbours and seeds do not go together, and that a slice of a
// tensor draws what the whole has there.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { normals } from "../../core/kernels/counter-hash.ts"
import { floats, run } from "./run.ts"

const count = 200_000

const drawn = (seed: number, first = 0) => {
  const draw = normals(seed)
  return Float64Array.from({ length: count }, (_, i) => draw(first + i))
}

/** Mean of x^power, in standard errors of its distance from what it should be, given the mean of x^(2 power). */
const errors = (values: Float64Array, power: number, expected: number, doubled: number): number => {
  let sum = 0
  for (const value of values) sum += value ** power
  return (sum / count - expected) / Math.sqrt((doubled - expected * expected) / count)
}

const product = (a: Float64Array, b: Float64Array, lag: number): number => {
  let sum = 0
  for (let i = 0; i < count; i++) sum += a[i]! * b[(i + lag) % count]!
  return sum / Math.sqrt(count)
}

describe("normal numbers by index", () => {
  // Moments of a sum of twelve uniform variables about 0: 1, 2.9 and 13.55, from its cumulants; of 16 bits, within 1e-9.
  it("have the moments of a sum of twelve uniform numbers", () => {
    for (const seed of [0, 1, 77, 2 ** 40 + 3]) {
      const values = drawn(seed, seed)
      expect(Math.abs(errors(values, 1, 0, 1))).toBeLessThan(4)
      expect(Math.abs(errors(values, 2, 1, 2.9))).toBeLessThan(4)
      expect(Math.abs(errors(values, 3, 0, 13.55))).toBeLessThan(4)
      expect(values.every((value) => Math.abs(value) < 6)).toBe(true)
    }
  })

  it("do not go with their neighbours, nor with those of another seed", () => {
    const [a, b, next] = [drawn(5), drawn(6), drawn(5 + 2 ** 32)]
    for (let lag = 1; lag < 20; lag++) expect(Math.abs(product(a, a, lag))).toBeLessThan(4.5)
    for (let lag = 0; lag < 20; lag++) {
      expect(Math.abs(product(a, b, lag))).toBeLessThan(4.5)
      expect(Math.abs(product(a, next, lag))).toBeLessThan(4.5)
    }
  })

  it("are those of the whole tensor in a slice of it", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.nat(50), fc.integer({ min: 1, max: 30 }), (seed, first, length) => {
        const attributes = { seed: Math.abs(seed), deviation: 0.02 }
        const [whole] = run(
          kernels.normal_values,
          [
            floats(
              [80],
              Array.from({ length: 80 }, () => 9)
            )
          ],
          attributes
        )
        const [slice] = run(
          kernels.normal_values,
          [
            floats(
              [length],
              Array.from({ length }, () => 9)
            )
          ],
          {
            ...attributes,
            first
          }
        )
        expect(slice!.data).toEqual(whole!.data.slice(first, first + length))
      })
    )
  })
})
