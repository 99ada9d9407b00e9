// A part of a tensor that is drawn draws what the whole has there.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { initialValues, stretchOf } from "../../core/machine/initial.ts"
import type { Drawn } from "../../core/machine/tensor.ts"
import { constant, normal, uniform } from "../../core/models/initial-values.ts"

const whole = (attributes: Readonly<Record<string, number>>, { kernel, attributes: own }: Drawn): Drawn => ({
  kernel,
  attributes: { ...own, ...attributes }
})

it("stretches of a tensor, one behind the other, hold what the whole holds", () => {
  let cutWithin = 0
  let empty = 0
  fc.assert(
    fc.property(
      fc.constantFrom(normal(7, 0.5), uniform(7, -1, 2), constant(3)),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(9),
      fc.nat(20),
      fc.array(fc.nat(60), { maxLength: 5 }),
      (drawn, elements, at, first, cuts) => {
        const begin = Math.min(at, elements - 1)
        // to the end, or not as far: padding stays zero
        const counts = [{}, { count: Math.max(1, Math.floor((elements - begin) / 2)) }]
        for (const count of counts) {
          const all = [whole({ first, at: begin, ...count }, drawn)]
          const values = initialValues({ shape: [elements], dtype: "float32", initial: all })
          const ends = [...cuts.filter((cut) => cut < elements).toSorted((a, b) => a - b), elements]
          let from = 0
          for (const to of ends) {
            const shift = (from + to) % 3
            const initial = all.flatMap((one) => stretchOf(one, from, to, shift))
            if (initial.length === 0 && to > from) empty++
            if (from > begin && initial.length > 0) cutWithin++
            const part = initialValues({ shape: [shift + to - from], dtype: "float32", initial })
            expect([...part]).toEqual([...Array<number>(shift).fill(0), ...values.subarray(from, to)])
            from = to
          }
        }
      }
    )
  )
  expect(cutWithin).toBeGreaterThan(50)
  expect(empty).toBeGreaterThan(20)
})

it("refuses a stretch of some columns of a matrix", () => {
  expect(() => stretchOf(uniform(1, 0, 1, { count: 4, columns: 2, stride: 5 }), 0, 3, 0)).toThrow(
    "uniform_values: no stretch of a window of columns"
  )
})

it("takes a count of 0 for all, cut or whole", () => {
  expect(stretchOf(uniform(1, 0, 1, { count: 0 }), 2, 5, 0)).toEqual(stretchOf(uniform(1, 0, 1), 2, 5, 0))
})
