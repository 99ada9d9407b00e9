// Traces whose clocks, units or shapes are half right: the numbers are right all the same, or it is told what they lack.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { importKineto, type ImportReport, type KinetoOptions } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

type Event = Record<string, unknown>

const twoSteps = smallStep(smallStep(new ChromeTrace(), 1000, 5), 1200, 9)

const importOf = (
  change: (event: Event) => Event,
  options: KinetoOptions = {},
  members = twoSteps.members
): Promise<ImportReport> => {
  const text = JSON.stringify({ ...members, traceEvents: twoSteps.events.map(change) })
  return Effect.runPromise(importKineto(new TextEncoder().encode(text), { file: "t.json", ...options }))
}

const onDevice = ({ cat }: Event): boolean => cat === "kernel"
const phases = ["forward", "backward", "optimizer"] as const
const timesOf = ({ profile }: ImportReport) =>
  profile.layers.flatMap((layer) => phases.map((phase) => layer[phase].busySeconds))

describe("a device's clock", () => {
  it("that is before the host's by whatever constant moves no time by more than a launch takes", async () => {
    const right = await importOf((event) => event)
    const property = fc.asyncProperty(fc.integer({ min: 2_000, max: 50_000_000 }), async (microseconds) => {
      const early = await importOf((event) =>
        onDevice(event) ? { ...event, ts: Number(event["ts"]) - microseconds } : event
      )
      expect(early.warnings.join()).toMatch(/device's clock is .* s before the host's/u)
      expect(early.profile.layers.map(({ name }) => name)).toEqual(
        right.profile.layers.map(({ name }) => name)
      )
      timesOf(early).forEach((seconds, i) => {
        expect(seconds).toBeCloseTo(timesOf(right)[i]!, 9)
      })
      expect(Math.abs(early.profile.stepSeconds - right.profile.stepSeconds)).toBeLessThan(2e-6)
    })
    await fc.assert(property, { numRuns: 20 })
  })
})

describe("nanoseconds", () => {
  const nanos = (value: unknown) => Math.round(Number(value) * 1000)
  const inNanos = (event: Event): Event => ({ ...event, ts: nanos(event["ts"]), dur: nanos(event["dur"]) })

  it("of which the file says nothing are suspected, and read where it is said", async () => {
    const { profile, warnings } = await importOf(inNanos)
    expect(profile.deviceBusySeconds).toBeCloseTo(0.122, 12)
    expect(warnings.join()).toMatch(/median device event lasts 10 ms .* --timestamps ns/u)
    const told = await importOf(inNanos, { timestampUnit: "ns" })
    expect(told.profile.deviceBusySeconds).toBeCloseTo(122e-6, 12)
    expect(told.warnings.join()).not.toContain("--timestamps")
  })

  it("are not suspected of a trace in microseconds", async () => {
    for (const round of [Number, (value: unknown) => Math.round(Number(value))]) {
      const { warnings } = await importOf((event) => ({ ...event, ts: round(event["ts"]) }))
      expect(warnings.join()).not.toContain("--timestamps")
    }
  })
})

describe("shapes", () => {
  it("that some gradients lack are told, with how many", async () => {
    let gradients = 0
    const { profile, warnings } = await importOf((event) => {
      if (event["name"] !== "torch::autograd::AccumulateGrad" || gradients++ % 3 !== 0) return event
      return { ...event, args: {} }
    })
    expect(profile.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(72)
    expect(warnings.join()).toContain("2 of 6 AccumulateGrad events have no shape or received nothing")
  })

  it("that all have are not spoken of", async () => {
    expect((await importOf((event) => event)).warnings.join()).not.toContain("AccumulateGrad")
  })
})

describe("steps that are missing between two others", () => {
  /** Steps of 200 us with these numbers, each at its place; `of` of them left in the file. */
  const withSteps = (numbers: ReadonlyArray<number>, between = 0): Promise<ImportReport> => {
    const trace = new ChromeTrace()
    for (const number of numbers) {
      const at = 1000 + 200 * number + (number > 3 ? between : 0)
      const step = smallStep(new ChromeTrace(), at, 1 + 4 * number)
      for (const event of step.events) {
        const args = { ...(event["args"] as Event) }
        if (typeof args["correlation"] === "number") args["correlation"] += 1000 * number
        const name = event["name"] === "ProfilerStep#1" ? `ProfilerStep#${number}` : event["name"]
        trace.push({ ...event, name, args })
      }
    }
    return Effect.runPromise(importKineto(trace.bytes, { file: "t.json" }))
  }

  it("lengthen none of those that are there", async () => {
    const whole = await withSteps([1, 2, 3, 4, 5])
    expect(whole.warnings).toEqual([])
    const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: 2, maxLength: 6 })
    const property = fc.asyncProperty(numbers, async (drawn) => {
      const kept = drawn.toSorted((a, b) => a - b)
      const { profile, warnings } = await withSteps(kept)
      expect(profile.steps).toBe(kept.length)
      // A step ends where the next begins on the device, 10 us after its mark; the last with its last kernel or its mark, 199 us long.
      expect(Math.abs(profile.stepSeconds - whole.profile.stepSeconds)).toBeLessThan(12e-6)
      const gaps = kept.filter((number, i) => i > 0 && number > kept[i - 1]! + 1).length
      expect(warnings.filter((line) => line.startsWith("ProfilerStep marks #"))).toHaveLength(
        gaps > 0 ? 1 : 0
      )
    })
    await fc.assert(property, { numRuns: 30 })
  })

  it("are named", async () => {
    expect((await withSteps([1, 2, 4, 9])).warnings).toContain(
      "ProfilerStep marks #3, #5 to #8 are missing: what lies between their neighbours is in no step"
    )
  })

  it("where nothing numbers them, show in a step that is unlike the others", async () => {
    const { warnings } = await withSteps([1, 2, 3, 4, 5], 1000)
    expect(warnings.join()).toMatch(
      /steps are unlike: 1 of 5 take up to 1.20 ms on the host, the others about 200 us/u
    )
  })
})
