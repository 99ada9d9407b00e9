// What is a step, and what communicates, at the edges of each rule: marks that are missing, unlike or stubs, streams that do more than
// communicate, kernels by names that say otherwise than whoever launched them. Every expected number is on the page.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { importKineto, type ImportReport } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

const imported = (trace: ChromeTrace): Promise<ImportReport> =>
  Effect.runPromise(importKineto(trace.bytes, { file: "t.json" }))
const us = (seconds: number): number => Math.round(seconds * 1e9) / 1e3

const isMark = ({ name }: Record<string, unknown>): boolean => String(name).startsWith("ProfilerStep")
const marksOf = (trace: ChromeTrace): Array<Record<string, unknown>> => trace.events.filter(isMark)
const steps = (count: number): ChromeTrace => {
  const trace = new ChromeTrace()
  for (let i = 0; i < count; i++) smallStep(trace, 200 * i, 50 + 10 * i)
  marksOf(trace).forEach((mark, i) => (mark["name"] = `ProfilerStep#${i + 1}`))
  return trace
}

describe("marks of steps", () => {
  it("are told of where some take more than twice as long as usual", async () => {
    for (const [length, told] of [
      [395, false],
      [500, true]
    ] as const) {
      const trace = steps(3)
      marksOf(trace)[2]!["dur"] = length
      const { warnings } = await imported(trace)
      expect(warnings.some((one) => one.startsWith("steps are unlike: 1 of 3"))).toBe(told)
    }
  })

  it("are told of where one between two is missing", async () => {
    const trace = steps(3)
    trace.events.splice(trace.events.indexOf(marksOf(trace)[1]!), 1)
    const { profile, warnings } = await imported(trace)
    expect(warnings.join("\n")).toContain("ProfilerStep marks #2 are missing")
    expect(profile.steps).toBe(2)
  })

  it("are no step at the end with hardly a launch and no backward pass", async () => {
    const withStub = (launches: number, backward: boolean): ChromeTrace => {
      const trace = new ChromeTrace()
      // 9 launches of the step and 12 more: a tenth of that are 2.1.
      for (const at of [0, 200]) {
        smallStep(trace, at, 50 + at)
        for (let i = 0; i < 12; i++) trace.kernel("more", at + 140 + i, at + 150 + 2 * i, 1)
      }
      trace.host("user_annotation", "ProfilerStep#3", 400, 50)
      for (let i = 0; i < launches; i++) trace.kernel("more", 402 + i, 410 + 2 * i, 1)
      if (backward) trace.node("MmBackward0", 900, 405, 5)
      marksOf(trace).forEach((mark, i) => (mark["name"] = `ProfilerStep#${i + 1}`))
      return trace
    }
    expect((await imported(withStub(2, false))).profile.steps).toBe(2)
    expect((await imported(withStub(3, false))).profile.steps).toBe(3)
    expect((await imported(withStub(2, true))).profile.steps).toBe(3)
  })

  /** One mark around two steps; so many more nodes in the second's backward pass. */
  const aroundTwo = (more: number): ChromeTrace => {
    const trace = steps(2)
    const [first, second] = marksOf(trace)
    first!["dur"] = 399
    trace.events.splice(trace.events.indexOf(second!), 1)
    for (let i = 0; i < more; i++) trace.node("MoreBackward0", 700 + i, 288 + 3 * i, 2)
    return trace
  }

  it("are as many as optimizer steps with like backward passes of their own", async () => {
    // Seven nodes in each: 1.2 times as many are 8.4.
    expect((await imported(aroundTwo(0))).profile.steps).toBe(2)
    expect((await imported(aroundTwo(1))).profile.steps).toBe(2)
    const { profile, warnings } = await imported(aroundTwo(2))
    expect(profile.steps).toBe(1)
    expect(warnings.join("\n")).toContain("holds 2 optimizer steps with different backward passes")
  })

  it("are one where the first optimizer step has no backward pass before it", async () => {
    const trace = steps(1)
    trace.host("user_annotation", "Optimizer.step#AdamW.step", 0.2, 0.5)
    const { profile, warnings } = await imported(trace)
    expect(profile.steps).toBe(1)
    expect(warnings.join("\n")).toContain("holds 2 optimizer steps with different backward passes")
  })
})

it("what begins and ends at one time is an event of no length", async () => {
  const trace = steps(1)
  const plain = await imported(trace)
  const event = { cat: "cpu_op", name: "aten::view", pid: 10, tid: 9, ts: 5 }
  trace.push({ ph: "B", ...event }).push({ ph: "E", ...event })
  expect((await imported(trace)).profile.deviceBusySeconds).toBe(plain.profile.deviceBusySeconds)
})

describe("what communicates", () => {
  const ring = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
  /** A step of `smallStep`, whose kernels take 122 us on stream 7, with others behind them: name, microseconds, stream. */
  const beside = async (
    ...others: ReadonlyArray<readonly [name: string, microseconds: number, stream: number]>
  ): Promise<{ readonly communication: number; readonly compute: number }> => {
    const trace = steps(1)
    let at = 143
    marksOf(trace)[0]!["dur"] = 100_000
    for (const [name, microseconds, stream] of others) {
      trace.kernel(name, 140, at, microseconds, 1, { stream })
      at += microseconds + 1
    }
    const { communication } = await imported(trace)
    return { communication: us(communication!.unionSeconds), compute: us(communication!.computeSeconds) }
  }

  it("is what is named so, and what else runs on a stream that does nearly nothing but that", async () => {
    expect(await beside([ring, 950, 8])).toEqual({ communication: 950, compute: 122 })
    expect(await beside([ring, 950, 8], ["my_kernel", 50, 8])).toEqual({ communication: 1000, compute: 122 })
    // Of a stream that does other things too, only what is named so.
    expect(await beside([ring, 60, 8], ["my_kernel", 40, 8])).toEqual({ communication: 60, compute: 162 })
  })

  it("is not the rest of the model's own stream, however little that does", async () => {
    expect(await beside([ring, 5000, 7])).toEqual({ communication: 5000, compute: 122 })
  })

  it("is not what runs elsewhere by the same name", async () => {
    expect((await beside([ring, 950, 8], ["gemm_a", 50, 8])).communication).toBe(950)
  })

  it("is no copy or fill, and these are no compute either", async () => {
    expect(await beside([ring, 950, 8], ["Memset (Device)", 40, 7])).toEqual({
      communication: 950,
      compute: 122
    })
  })

  it("is what a collective's call launched, but for kernels whose names say that they compute", async () => {
    const called = async (name: string): Promise<number> => {
      const trace = steps(1)
      trace.op("c10d::allreduce_", 134, 4)
      trace.kernel(name, 135, 150, 30)
      trace.kernel(ring, 140, 190, 10, 1, { stream: 8 })
      return us((await imported(trace)).communication!.unionSeconds)
    }
    expect(await called("own_kernel")).toBe(40)
    expect(await called("void at::native::vectorized_elementwise_kernel<4>(int)")).toBe(10)
  })
})
