import { expect, it } from "vitest"
import { Random } from "../core/random.ts"

const draws = 100_000

it.each([0.01, 0.1, 0.3, 0.7, 1])(
  "positive times have the stated mean and deviation, whatever it is: %d",
  (deviation) => {
    const random = new Random(20_260_101).split(`positive ${deviation}`)
    let [sum, squares, least] = [0, 0, Infinity]
    for (let i = 0; i < draws; i++) {
      const value = random.positive(deviation)
      sum += value
      squares += value * value
      least = Math.min(least, value)
    }
    const mean = sum / draws
    expect(least).toBeGreaterThanOrEqual(0)
    // Five standard errors. A normal distribution cut at 0 has a mean of 1.083 at a deviation of 1.
    expect(Math.abs(mean - 1)).toBeLessThan((5 * deviation) / Math.sqrt(draws))
    expect(Math.sqrt(squares / draws - mean * mean) / deviation).toBeCloseTo(1, 1.5)
  }
)

it("positive times without deviation are 1", () => {
  expect(new Random(1).positive(0)).toBe(1)
})
