// Times between, below and beyond measured points, by hand: which of two lines holds, and where each ends.
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { interpolate, interpolateMessage, WorkCurve } from "../../core/cost/curve.ts"
import { deviceNamed } from "../../core/cost/devices.ts"
import { loadOf, measuredRow } from "../../core/cost/measures.ts"
import { OpTable } from "../../core/cost/op-table.ts"
import type { CollectiveCost, OpCost } from "../../core/profile.ts"

describe("straight lines", () => {
  it("extend beyond the points, and never below zero", () => {
    expect(interpolate([10, 20], [1, 3], 0)).toEqual({ value: 0, inside: false })
    expect(interpolate([10, 20], [1, 3], 7.5)).toEqual({ value: 0.5, inside: false })
    expect(interpolate([10, 20], [1, 3], 30)).toEqual({ value: 5, inside: false })
    for (const [x, value] of [
      [10, 1],
      [15, 2],
      [20, 3]
    ] as const)
      expect(interpolate([10, 20], [1, 3], x)).toEqual({ value, inside: true })
  })
})

describe("a message", () => {
  it("between two whose time grows slower than bytes takes a part of the way to their power law", () => {
    // Time grows with the square root of bytes: the power law says sqrt(10) at 10, the line 1 + 9 / 11; a quarter of the way, in
    // logarithms, for half of what is left of 1 is the part.
    const line = 1 + 9 * (9 / 99)
    const found = interpolateMessage([1, 100], [1, 10], 10)
    expect(found.value).toBeCloseTo(line * (Math.sqrt(10) / line) ** 0.25, 12)
    // Where it does not grow at all, both say the same.
    expect(interpolateMessage([1, 100], [2, 2], 10).value).toBeCloseTo(2, 12)
    // Where it grows as fast as bytes or faster the line is right.
    expect(interpolateMessage([1, 100], [1, 100], 10).value).toBeCloseTo(10, 12)
    expect(interpolateMessage([1, 100], [1, 1000], 10).value).toBeCloseTo(1 + 9 * (999 / 99), 12)
  })

  it("beyond the largest is on the line from the largest that took less time", () => {
    expect(interpolateMessage([1, 2, 4], [1, 2, 8], 8)).toEqual({ value: 20, inside: false })
    // One that was sent faster than a smaller one is passed over.
    expect(interpolateMessage([1, 2, 4, 8], [1, 9, 8, 10], 16).value).toBe(14)
    expect(interpolateMessage([1, 2, 4], [1, 9, 8], 7).value).toBe(15)
    expect(interpolateMessage([1, 2, 4], [9, 9, 9], 8).value).toBe(18)
  })
})

describe("a curve over work", () => {
  const curve = (points: ReadonlyArray<readonly [number, number]>, least = 0) =>
    new WorkCurve(
      points.map(([work, seconds]) => ({ work, seconds })),
      least
    )

  it("takes only points of the same work at their mean", () => {
    expect(curve([[1, 2], [1, 4]]).seconds).toEqual([3]) // prettier-ignore
    expect(curve([[1, 2], [1.0005, 4]]).seconds).toEqual([2, 4]) // prettier-ignore
  })

  it("goes down along its first piece, to what a launch takes at least, but to no more than its first point", () => {
    const pair = [[10, 4], [20, 6]] as const // prettier-ignore
    expect(curve(pair).secondsAt(5)).toEqual({ seconds: 3, where: "below" })
    expect(curve(pair, 3.5).secondsAt(5).seconds).toBe(3.5)
    expect(curve(pair, 9).secondsAt(5).seconds).toBe(4)
    // A first piece that falls is none to go down along.
    expect(curve([[10, 4], [20, 3]]).secondsAt(5).seconds).toBe(4) // prettier-ignore
  })

  it("goes up at the rate of its last piece, no better than the best measured and no worse than the last point's mean", () => {
    expect(curve([[1, 3], [2, 5]]).secondsAt(3)).toEqual({ seconds: 7, where: "above" }) // prettier-ignore
    expect(curve([[1, 1], [2, 10]]).secondsAt(3).seconds).toBe(15) // prettier-ignore
    expect(curve([[1, 5], [2, 5.1]]).secondsAt(3).seconds).toBeCloseTo(6.1, 12) // prettier-ignore
  })
})

describe("a table of collectives", () => {
  const row = (
    ranks: number,
    sizeBytes: number,
    medianSeconds: number,
    besideSeconds?: number
  ): CollectiveCost => ({
    op: "all_to_all",
    ranks,
    sizeBytes,
    medianSeconds,
    link: "unshaped",
    ...(besideSeconds === undefined ? {} : { besideSeconds })
  })

  it("says what begins beside kernels: the least that any waited, and what each took longer than that", () => {
    const table = new CollectiveTable([row(2, 100, 1, 3), row(2, 200, 1, 4)])
    expect(table.besideKernels("all_to_all", 100)).toEqual({ waitSeconds: 2, moreSeconds: 0 })
    expect(table.besideKernels("all_to_all", 150)!.moreSeconds).toBeCloseTo(0.5, 12)
    expect(table.besideKernels("all_to_all", 200)!.moreSeconds).toBe(1)
    expect(table.besideKernels("all_to_all", 400)!.moreSeconds).toBe(2)
    // Nobody waits for less than nothing.
    const shorter = new CollectiveTable([row(2, 100, 3, 1)])
    expect(shorter.besideKernels("all_to_all", 100)).toEqual({ waitSeconds: 0, moreSeconds: 0 })
  })

  it("leaves out what one rank takes, who sends nobody anything", () => {
    expect(new CollectiveTable([row(1, 100, 1)]).ops).toEqual([])
    expect(new CollectiveTable([row(1, 100, 7), row(2, 100, 1)]).ceiling("all_to_all", 2, 100)!.seconds).toBe(
      1
    )
  })

  it("has measured what both numbers of ranks beside it have measured", () => {
    const table = new CollectiveTable([row(2, 1, 1), row(2, 1e6, 2), row(8, 1, 1), row(8, 2, 2)])
    expect(table.ceiling("all_to_all", 4, 1000)!.inside).toBe(false)
    expect(table.ceiling("all_to_all", 4, 1.5)!.inside).toBe(true)
  })
})

describe("work of a launch", () => {
  it("of attention over a prompt: each token with those up to itself, and each row's log-sum-exp", () => {
    const [batch, tokens, heads, kvHeads, headWidth] = [2, 3, 4, 2, 8]
    // Products of a query and a key, and of a weight and a value: two multiply-adds for each pair, head and column.
    const pairs = batch * (1 + 2 + 3)
    const rows = batch * tokens
    expect(loadOf("prefill_attention", { batch, tokens, heads, kvHeads, headWidth }, 16)).toEqual({
      flops16: pairs * heads * headWidth * 2 * 2,
      // Queries, outputs; keys, values; a float32 for each row and head.
      bytes: 2 * rows * headWidth * (2 * heads + 2 * kvHeads) + 4 * rows * heads
    })
  })

  it("of decoding: queries and outputs, and what is cached", () => {
    const [batch, kv, heads, kvHeads, headWidth] = [2, 10, 4, 2, 8]
    expect(loadOf("decode_attention", { batch, kv, heads, kvHeads, headWidth }, 32)).toEqual({
      // At 32 bits each counts two.
      flops16: 2 * batch * kv * heads * headWidth * 2 * 2,
      bytes: 4 * (2 * batch * heads * headWidth + 2 * batch * kv * kvHeads * headWidth)
    })
  })

  it("of a size of none is no measurement", () => {
    const gemm = (m: number): OpCost => ({ op: "gemm", attributes: { m, k: 2, n: 3 }, medianSeconds: 1 })
    expect(measuredRow(gemm(0))).toBeUndefined()
    expect(measuredRow(gemm(1))?.sizes).toEqual({ m: 1, k: 2, n: 3 })
  })
})

describe("a table of ops", () => {
  const h200 = deviceNamed("NVIDIA H200")!
  const a100 = deviceNamed("NVIDIA A100")!
  const sizes = { m: 1024, k: 1024, n: 1024 }
  const rows: ReadonlyArray<OpCost> = [
    { op: "gemm_bf16", attributes: sizes, medianSeconds: 1e-3 },
    { op: "something_else", attributes: {}, medianSeconds: 2 }
  ]
  const measuredOn = { name: "NVIDIA H200", device: h200 }

  it("takes a launch for the plain kernel of its kind within 1 % of its arithmetic and 10 % of its bytes", () => {
    const table = new OpTable(rows, { measuredOn })
    const { flops16, bytes } = loadOf("product", sizes, 16)
    const source = (flops: number, moved: number): string =>
      table.cost({
        kernel: { name: "another" },
        measure: "product",
        sizes,
        dtype: "bfloat16",
        work: { flops: flops16 * flops, readBytes: bytes * moved, writtenBytes: 0 }
      })!.provenance
    expect([source(1, 1), source(1.009, 1), source(1, 1.09), source(0.991, 0.91)]).toEqual(
      Array.from({ length: 4 }, () => "exact")
    )
    for (const other of [source(1.02, 1), source(0.98, 1), source(1, 1.12), source(1, 0.88)])
      expect(other).not.toBe("exact")
  })

  it("carries what is of no known kind to another device by arithmetic", () => {
    const table = new OpTable(rows, { measuredOn, device: a100 })
    expect(table.unread).toEqual(["something_else"])
    expect(table.secondsOf(rows[1]!)).toBeCloseTo((2 * h200.flopsPerSecond) / a100.flopsPerSecond, 12)
    expect(new OpTable(rows, { measuredOn }).secondsOf(rows[1]!)).toBe(2)
  })
})
