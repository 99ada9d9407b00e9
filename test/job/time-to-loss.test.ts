// What bench/cluster/time-to-loss.ts makes of held-out losses and when they were seen.
import { describe, expect, it } from "vitest"
import {
  chartOf,
  reportOf,
  rowLine,
  together,
  whenReached,
  type LearntBy,
  type Row
} from "../../bench/cluster/time-to-loss-report.ts"

/** Losses after 20, 40, ... steps of so many seconds each. */
const curve = (stepSeconds: number, ...losses: ReadonlyArray<number>): LearntBy => ({
  initialLoss: 11,
  points: losses.map((loss, index) => {
    const step = 20 * (index + 1)
    return { step, seconds: stepSeconds * (step - 1), loss }
  })
})
const row = (variant: string, outcome: Row["outcome"], point = "10Gbit/s"): Row => ({
  point,
  variant,
  steps: 60,
  predictedSeconds: 0.1,
  outcome
})

describe("when a loss is reached", () => {
  const { points } = curve(1, 4, 3, 2)

  it("is between the evaluations before and after, along a line", () => {
    // 19 s and 39 s, a quarter of the way
    expect(whenReached(points, 3.75)).toEqual({ seconds: 24, atMost: false })
    expect(whenReached(points, 3)).toEqual({ seconds: 39, atMost: false })
  })

  it("is at most the first evaluation's, and never where no evaluation is as low", () => {
    expect(whenReached(points, 5)).toEqual({ seconds: 19, atMost: true })
    expect(whenReached(points, 1.9)).toBeUndefined()
  })

  it("is the first time where a loss rises again", () => {
    const [a, b, c, d] = curve(1, 4, 3, 5, 2).points
    expect(whenReached([a!, b!, c!, d!], 3.5)).toEqual({ seconds: 29, atMost: false })
  })
})

describe("ranks together", () => {
  it("have their mean loss when the last is there", () => {
    expect(together({ ranks: [curve(1, 4, 3), curve(2, 5, 2)] })).toEqual({
      initialLoss: 11,
      points: [
        { step: 20, seconds: 38, loss: 4.5 },
        { step: 40, seconds: 78, loss: 2.5 }
      ]
    })
  })
})

describe("the report", () => {
  it("compares at the lowest loss that all come to, and with each at that both come to", () => {
    const { text, complete } = reportOf(
      [
        row("ddp", curve(1, 4, 3, 2)),
        row("dreamddp", curve(0.1, 4, 3, 2)),
        row("local-sgd", curve(0.2, 4, 3, 2.5))
      ],
      "ddp"
    )
    expect(complete).toBe(true)
    const lines = text.split("\n").map((line) => line.split(/ {2,}/u))
    expect(lines[1]).toContain("to 2.500")
    expect(lines[2]).toEqual([
      "ddp",
      "60",
      "1000.0",
      "2.000",
      "49.00 s",
      "1.00",
      "2.000",
      "59.00 s",
      "59.00 s",
      "1.00"
    ])
    expect(lines[3]).toEqual([
      "dreamddp",
      "60",
      "100.0",
      "2.000",
      "4.90 s",
      "10.00",
      "2.000",
      "5.90 s",
      "59.00 s",
      "10.00"
    ])
    expect(lines[4]).toEqual([
      "local-sgd",
      "60",
      "200.0",
      "2.500",
      "11.80 s",
      "4.15",
      "2.500",
      "11.80 s",
      "49.00 s",
      "4.15"
    ])
  })

  it("says of a bound that it is one", () => {
    const { text } = reportOf([row("ddp", curve(1, 4, 3)), row("dreamddp", curve(0.1, 2.5, 2))], "ddp")
    expect(text).toMatch(/dreamddp .* <= 1\.90 s +>= 20\.53/u)
  })

  it.each([
    ["failed", { error: "lost rank 1" }],
    ["not run", undefined]
  ])("is incomplete where a run has %s", (cell, outcome) => {
    const rows = [row("ddp", curve(1, 4, 3)), row("dreamddp", outcome)]
    const { text, complete } = reportOf(rows, "ddp")
    expect(complete).toBe(false)
    expect(text).toMatch(new RegExp(`dreamddp +${cell}`, "u"))
    expect(text).toContain("1 of 2 runs")
    expect(text).toContain("INCOMPLETE")
    expect(rowLine(rows[1]!)).toMatch(/failed: lost rank 1|not run/u)
  })

  it("tells of a link where nothing was learnt", () => {
    const { text, complete } = reportOf([row("ddp", { error: "no GPU" })], "ddp")
    expect(text).toContain("nothing was learnt")
    expect(complete).toBe(false)
    expect(chartOf([row("ddp", { error: "no GPU" })])).toBeUndefined()
  })
})

describe("the chart", () => {
  it("has a line for each that learnt, within its frame", () => {
    const svg = chartOf([
      row("ddp", curve(1, 4, 3)),
      row("dreamddp", curve(0.1, 4, 3)),
      row("torch-ddp", undefined)
    ])!
    expect(svg).toContain(">DreamDDP</text>")
    expect(svg).not.toContain("PyTorch")
    const xs = [...svg.matchAll(/class="line [^"]*" points="([^"]+)"/gu)].map(([, points]) =>
      points!.split(" ").map((point) => Number(point.split(",")[0]))
    )
    expect(xs).toHaveLength(2)
    expect(xs[1]![0]).toBe(52)
    expect(xs[0]![1]).toBe(610)
    const names = [...svg.matchAll(/class="name [^"]*" x="618" y="([^"]+)"/gu)].map(([, y]) => Number(y))
    expect(names).toEqual([365, 380])
  })
})
