// Stretches of time held to counting instants one by one; and what is taken for beside collectives, by hand.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { besideCollectives, lostBeside, type Pieces } from "../../traces/kineto/beside-collectives.ts"
import { coverage, totalOf, union } from "../../traces/kineto/intervals.ts"

describe("stretches of time", () => {
  const horizon = 40
  const interval = fc
    .tuple(fc.integer({ min: 0, max: horizon }), fc.integer({ min: 0, max: 8 }))
    .map(([start, length]) => ({ start, end: Math.min(horizon, start + length) }))
  const asked = fc.array(interval, { maxLength: 8 })

  it("cover what any of them does, once, and do not touch", () => {
    fc.assert(
      fc.property(fc.array(interval, { maxLength: 12 }), asked, (intervals, questions) => {
        const instants = Array.from({ length: horizon }, (_, at) =>
          intervals.some(({ start, end }) => start <= at && at < end)
        )
        const covered = (from: number, to: number): number => instants.slice(from, to).filter(Boolean).length
        const all = union(intervals)
        expect(totalOf(all)).toBe(covered(0, horizon))
        for (let i = 1; i < all.length; i++) expect(all.starts[i]).toBeGreaterThan(all.ends[i - 1]!)
        const of = coverage(all)
        for (const { start, end } of questions.toSorted((a, b) => a.start - b.start))
          expect(of(start, end)).toBe(covered(start, end))
      }),
      { numRuns: 500 }
    )
  })

  it("that reach over others end where they end", () => {
    const { starts, ends, length } = union([
      { start: 0, end: 10 },
      { start: 2, end: 4 },
      { start: 10, end: 12 },
      { start: 13, end: 14 }
    ])
    expect([...starts.subarray(0, length)]).toEqual([0, 13])
    expect([...ends.subarray(0, length)]).toEqual([12, 14])
  })
})

describe("kernels beside collectives", () => {
  /** Of a kind so many kernels of a length, of which a share at the beginning is beside a collective. */
  type Group = readonly [kind: number, count: number, microseconds: number, share: number]

  const slowdownOf = (...groups: ReadonlyArray<Group>): number | undefined => {
    const each = groups.flatMap(([kind, count, length, share]) =>
      Array.from({ length: count }, () => ({ kind, length, share }))
    )
    let at = 0
    const placed = each.map((one) => {
      const start = at
      at += one.length + 10
      return { ...one, start, end: start + one.length }
    })
    const pieces: Pieces = {
      length: placed.length,
      start: Float64Array.from(placed, ({ start }) => start),
      end: Float64Array.from(placed, ({ end }) => end),
      kind: Int32Array.from(placed, ({ kind }) => kind)
    }
    const collectives = union(
      placed.flatMap(({ start, length, share }) =>
        share === 0 ? [] : [{ start, end: start + share * length }]
      )
    )
    const { slowdown, overlaps } = besideCollectives(pieces, collectives)
    placed.forEach(({ length, share }, i) => expect(overlaps[i]).toBeCloseTo(share * length, 9))
    return slowdown
  }

  const alone: Group = [0, 2, 100, 0]
  const within: Group = [0, 20, 150, 1]

  it("took so many times as long as those of their kind that ran alone", () => {
    expect(slowdownOf(alone, within)).toBe(1.5)
    // Nothing gains by company.
    expect(slowdownOf(alone, [0, 20, 90, 1])).toBe(1)
  })

  it("are those that ran beside one nearly all of their time, against those that hardly did", () => {
    expect(slowdownOf(alone, within, [0, 20, 300, 0.9])).toBe(1.5)
    expect(slowdownOf(alone, [0, 20, 150, 0.96])).toBe(1.5)
    expect(slowdownOf(alone, within, [0, 5, 500, 0.1])).toBe(1.5)
    expect(slowdownOf([0, 2, 100, 0.01], within)).toBe(1.5)
  })

  it("say nothing where too few tell: of a kind, of all, or of time", () => {
    expect(slowdownOf(alone, within, [1, 1, 10, 0], [1, 20, 100, 1])).toBe(1.5)
    expect(slowdownOf([0, 1, 100, 0], within)).toBeUndefined()
    expect(slowdownOf(alone, [0, 19, 150, 1])).toBeUndefined()
    expect(slowdownOf([0, 2, 20, 0], [0, 20, 24, 1])).toBeUndefined()
    expect(slowdownOf([0, 2, 20, 0], [0, 20, 26, 1])).toBeCloseTo(1.3, 12)
  })

  it("would have been shorter by what company cost them", () => {
    expect(lostBeside(30, 1.5)).toBeCloseTo(10, 12)
    expect(lostBeside(30, undefined)).toBe(0)
  })
})
