// Marks of steps that are no whole steps, what a mean over steps leaves out, and the order of layers that a second thread launches
// work between. Every expected number is on the page.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { importKineto, type ImportReport } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

const imported = (trace: ChromeTrace): Promise<ImportReport> =>
  Effect.runPromise(importKineto(trace.bytes, { file: "t.json" }))

const us = (seconds: number): number => Math.round(seconds * 1e9) / 1e3

/** A mark each of a batch of `smallStep`: 110 us of passes, and where it is said so 12 us of the optimizer. */
const batches = (optimizes: ReadonlyArray<boolean>): ChromeTrace => {
  const trace = new ChromeTrace()
  for (const [batch, optimizer] of optimizes.entries()) {
    smallStep(trace, 200 * batch, 50 + 10 * batch)
    // The region, the launch and the kernel of its optimizer are the last three.
    if (!optimizer) trace.events.splice(-3)
  }
  return trace
}

describe("marks of single batches", () => {
  it("are one step up to the optimizer's", async () => {
    const { profile, warnings } = await imported(batches([false, true, false, true]))
    expect(profile.steps).toBe(2)
    expect(us(profile.deviceBusySeconds)).toBe(232)
    expect(profile.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(104)
    expect(warnings[0]).toMatch(
      /^the optimizer steps in 2 of 4 ProfilerStep marks .* over 2 marks, which make one step$/u
    )
  })

  it("are left out before and behind whole steps", async () => {
    const { profile, warnings } = await imported(
      batches([true, false, false, true, false, false, true, false])
    )
    expect(profile.steps).toBe(2)
    expect(us(profile.deviceBusySeconds)).toBe(342)
    expect(warnings[0]).toMatch(/over 3 marks, which make one step; 2 marks of steps that are not whole/u)
  })

  it("are told of where they are not alike, or the only step may be a part", async () => {
    for (const unlike of [
      [false, true, true, false, true],
      [false, true, false, false]
    ]) {
      const { profile, warnings } = await imported(batches(unlike))
      expect(profile.steps).toBe(unlike.length)
      expect(warnings[0]).toMatch(/times are means over marks, not over steps/u)
    }
  })

  it("are steps where each has its optimizer", async () => {
    const { profile, warnings } = await imported(batches([true, true, true]))
    expect(profile.steps).toBe(3)
    expect(warnings).toEqual([])
  })
})

describe("a wait for data at the beginning of steps", () => {
  /** Marks of 299 us, the first kernel of each after 110; 300 us from one's first kernel to the other's, and 189 to the end. */
  const late = (): ChromeTrace => {
    const trace = new ChromeTrace()
    for (const step of [0, 1]) smallStep(trace, 300 * (step + 1), 50 + 10 * step)
    for (const event of trace.events)
      if (event.name === "ProfilerStep#1")
        Object.assign(event, { ts: Number(event.ts) - 100, dur: Number(event.dur) + 100 })
    return trace
  }

  it("is told to be missing of the last", async () => {
    const { profile, warnings } = await imported(late())
    expect(us(profile.stepSeconds)).toBe(244.5)
    expect(warnings).toEqual([expect.stringMatching(/waited 110 us .* too short by 55\.0 us/u)])
  })

  it("is none where the device still worked on the step before", async () => {
    const trace = late()
    const optimizer = trace.events.find(({ name }) => name === "multi_tensor_apply_kernel")!
    // The second step's first kernel is at 610 us.
    Object.assign(optimizer, { dur: 609 - Number(optimizer.ts) })
    const { profile, warnings } = await imported(trace)
    expect(us(profile.stepSeconds)).toBe(244.5)
    expect(warnings).toEqual([])
  })
})

describe("work that a second thread launches between the calls of modules", () => {
  it("leaves the layers in the order of the forward pass", async () => {
    const trace = new ChromeTrace()
    trace.host("user_annotation", "ProfilerStep#1", 0, 100).module("Net_0", 1, 80)
    for (const layer of [0, 1, 2]) {
      const at = 5 + 20 * layer
      trace.op("aten::copy_", at, 3, {}, 5).kernel("prefetch", at + 1, at + 2, 1, 5)
      trace.module(`Linear_${layer}`, at + 5, 8)
      trace.op("aten::linear", at + 6, 6, { "Sequence number": layer }).kernel("gemm", at + 7, at + 8, 4)
    }
    const { profile } = await imported(trace)
    expect(profile.layers.map(({ name }) => name)).toEqual([
      "aten::copy_",
      "Linear_0",
      "Linear_1",
      "Linear_2"
    ])
  })
})
