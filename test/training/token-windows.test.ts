// Batches of language modelling: what windows hold, that every place of the corpus is drawn about equally often, and that
// seed, stream and step each choose other windows.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { windowStart } from "../../core/kernels/token-windows.ts"
import { integers, run } from "../kernels/run.ts"

const counting = (length: number) =>
  integers(
    [length],
    Array.from({ length }, (_, i) => i)
  )

describe("token_windows", () => {
  it("cuts windows out of the corpus, and each one's targets are the tokens that follow", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 50 }),
        fc.record({ seed: fc.maxSafeInteger(), stream: fc.integer({ min: -1, max: 9 }), step: fc.nat() }),
        (batch, time, more, place) => {
          const [tokens, targets] = run(kernels.token_windows, [counting(time + more)], {
            batch,
            time,
            ...place
          })
          for (let b = 0; b < batch; b++) {
            const first = tokens!.data[b * time]!
            expect(first).toBeGreaterThanOrEqual(0)
            for (let t = 0; t < time; t++) {
              expect(tokens!.data[b * time + t]).toBe(first + t)
              expect(targets!.data[b * time + t]).toBe(first + t + 1)
            }
          }
        }
      )
    )
  })

  it("draws every place about equally often", () => {
    // 32,000 draws of 16 places: 2,000 each with deviation 43; 5 deviations
    const counts = new Int32Array(16)
    for (let step = 0; step < 4000; step++)
      for (let b = 0; b < 8; b++) counts[windowStart({ seed: 3, stream: 1, step }, b, 16)]!++
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(215)
  })

  it("draws other windows for another seed, stream or step, and the same for the same", () => {
    const starts = (seed: number, stream: number, step: number) =>
      Array.from({ length: 4 }, (_, b) => windowStart({ seed, stream, step }, b, 1e6)).join(" ")
    const drawn = new Set<string>()
    for (const seed of [0, 1]) {
      for (const stream of [-1, 0, 1])
        for (const step of [0, 1, 2]) {
          drawn.add(starts(seed, stream, step))
          expect(starts(seed, stream, step)).toBe(starts(seed, stream, step))
        }
    }
    expect(drawn.size).toBe(18)
  })

  it("refuses a corpus that has no window", () => {
    const place = { batch: 1, time: 4, seed: 0, step: 0 }
    expect(() => run(kernels.token_windows, [counting(4)], place)).toThrow(/a window needs 5/)
    expect(run(kernels.token_windows, [counting(5)], place)[1]!.data).toEqual(Int32Array.of(1, 2, 3, 4))
  })
})
