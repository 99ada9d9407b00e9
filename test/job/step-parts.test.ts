// What bench/cluster/moe.ts says of steps: how much of the communication had computing beside it, and nothing that was not run counts.
import { describe, expect, it } from "vitest"
import { reportOf, rowLines, type Row } from "../../bench/cluster/moe-report.ts"
import { stepParts, type StepParts } from "../../bench/cluster/step-parts.ts"
import { Lane } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"

type Ran = readonly [rank: number, lane: number, step: number, from: number, to: number]

const timelineOf = (rows: ReadonlyArray<Ran>): Timeline => ({
  rank: Int32Array.from(rows, ([rank]) => rank),
  op: Int32Array.from(rows, (_, row) => row),
  lane: Uint8Array.from(rows, ([, lane]) => lane),
  step: Int32Array.from(rows, ([, , step]) => step),
  label: new Int32Array(rows.length),
  labels: ["an op"],
  kernel: Int32Array.from(rows, ([, lane]) => (lane === Lane.compute ? 0 : 1)),
  kernels: ["linear.forward", "all_to_all"],
  startSeconds: Float64Array.from(rows, ([, , , from]) => from),
  endSeconds: Float64Array.from(rows, ([, , , , to]) => to),
  sizeBytes: new Float64Array(rows.length),
  cause: new Int32Array(rows.length).fill(-1)
})

describe("the parts of a step", () => {
  it("tell what overlaps, of the measured steps and each rank's own", () => {
    const parts = stepParts(
      timelineOf([
        [0, Lane.compute, 0, 0, 1],
        [0, Lane.inter, 0, 0, 1],
        // 2 s of 3 beside computing, in two pieces; 1 s beside the other lane
        [0, Lane.inter, 1, 1, 4],
        [0, Lane.compute, 1, 1, 2],
        [0, Lane.compute, 1, 3, 5],
        [0, Lane.intra, 1, 3, 6],
        // Another rank's computing hides nothing.
        [1, Lane.compute, 0, 0, 1],
        [1, Lane.inter, 1, 1, 2],
        [1, Lane.compute, 1, 2, 5]
      ]),
      1,
      1
    )
    expect(parts).toEqual({
      stepSeconds: 4,
      computeSeconds: 3,
      inter: { busySeconds: 2, hiddenSeconds: 1 },
      intra: { busySeconds: 1.5, hiddenSeconds: 1 },
      bothSeconds: 0.5,
      kernelSeconds: { "linear.forward": 3, "all_to_all inter": 2, "all_to_all intra": 1.5 }
    })
  })
})

const parts = (stepSeconds: number): StepParts => ({
  stepSeconds,
  computeSeconds: 0.5,
  inter: { busySeconds: 0.4, hiddenSeconds: 0.1 },
  intra: { busySeconds: 0, hiddenSeconds: 0 },
  bothSeconds: 0,
  kernelSeconds: { "linear.forward": 0.5 }
})
const row = (variant: string, predicted: number, measured: Row["measured"]): Row => ({
  variant,
  degrees: [4, 2],
  predicted: parts(predicted),
  measured
})

describe("the report of MoE training", () => {
  it("tells errors, and whether the planned degrees were the fastest", () => {
    const rows = [row("none", 1, parts(1)), row("planned", 0.84, parts(0.8))]
    const { text, complete, worstError } = reportOf(rows, "planned")
    expect(complete).toBe(true)
    expect(worstError).toBeCloseTo(0.05, 12)
    expect(text).toContain("| planned | 4, 2 | 840.0 | 800.0 | +5.0 % | 25 % | - |")
    expect(text).toContain("the planned degrees were the fastest")
    expect(reportOf(rows, "none").text).toContain("+25.0 % against the fastest")
  })

  it.each([
    ["failed", row("planned", 1, { error: "lost rank 1" })],
    ["not run", row("planned", 1, undefined)],
    ["-", { variant: "planned", measured: parts(1) }]
  ])("is incomplete where a variant has %s", (cell, other) => {
    const { text, complete } = reportOf([row("none", 1, parts(1)), other], "planned")
    expect(complete).toBe(false)
    expect(text).toContain(`| ${cell} |`)
    expect(text).toContain("1 of 2 predicted and run; worst error 0.0 %; INCOMPLETE")
    expect(rowLines(other).join("\n")).toMatch(/failed: lost rank 1|not run|step, ms: 1000.0/u)
  })
})
