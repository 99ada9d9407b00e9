// Lines of costs are the best of their kind: none near them has smaller errors, and where one of both numbers would be below zero, none
// without it.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { fitLine, secondsAt } from "../../core/algorithms/moe-training/plan/cost-line.ts"

const meaning = { unit: "elements", dtype: "bfloat16", scope: "input" } as const
const measurements = fc.uniqueArray(
  fc.record({
    size: fc.integer({ min: 0, max: 1000 }),
    seconds: fc.double({ min: 0.01, max: 10, noNaN: true })
  }),
  { selector: ({ size }) => size, minLength: 2, maxLength: 8 }
)

it.each(["absolute", "relative"] as const)(
  "least squares of %s errors, with neither number below zero",
  (weighting) => {
    const seen = { slopeless: 0, fixedless: 0, both: 0 }
    fc.assert(
      fc.property(measurements, (points) => {
        const line = fitLine("op", meaning, points, weighting)
        const loss = (fixedSeconds: number, secondsPerUnit: number): number =>
          points.reduce((sum, { size, seconds }) => {
            const off = secondsAt({ fixedSeconds, secondsPerUnit }, size) - seconds
            return sum + (weighting === "absolute" ? off : off / seconds) ** 2
          }, 0)
        const { fixedSeconds, secondsPerUnit } = line
        expect(fixedSeconds).toBeGreaterThanOrEqual(0)
        expect(secondsPerUnit).toBeGreaterThanOrEqual(0)
        if (secondsPerUnit === 0) seen.slopeless++
        else if (fixedSeconds === 0) seen.fixedless++
        else seen.both++
        const own = loss(fixedSeconds, secondsPerUnit)
        for (const a of [-1e-3, 0, 1e-3])
          for (const b of [-1e-5, 0, 1e-5]) {
            const [fixed, slope] = [fixedSeconds + a, secondsPerUnit + b]
            if (fixed >= 0 && slope >= 0)
              expect(loss(fixed, slope)).toBeGreaterThanOrEqual(own * (1 - 1e-9) - 1e-12)
          }
        const errors = points.map(({ size, seconds }) => Math.abs(secondsAt(line, size) / seconds - 1))
        expect(line.maxError).toBe(Math.max(...errors))
      }),
      { numRuns: 300 }
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(10)
  }
)
