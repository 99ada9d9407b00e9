import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  evaluateSets,
  exposedSecondsOf,
  type LayerTimes,
  latenessSeconds,
  syncProblem
} from "../../core/algorithms/data-parallel/plan/cost.ts"
import { instances, problemOf, replayExposedSeconds } from "./instances.ts"

/** A layer with forward 1, update 0.5 and the given backward and communication seconds. */
const layer = (backwardSeconds: number, communicationSeconds: number): LayerTimes => ({
  forwardSeconds: 1,
  updateSeconds: 0.5,
  backwardSeconds,
  communicationSeconds
})

/** A random assignment of an instance's layers to its iterations. */
const assigned = instances({ layersMax: 9, periodMax: 4 }).chain((instance) =>
  fc
    .array(fc.nat(instance.period - 1), {
      minLength: instance.layers.length,
      maxLength: instance.layers.length
    })
    .map((homes) => ({
      instance,
      sets: Array.from({ length: instance.period }, (_, h) =>
        homes.flatMap((home, index) => (home === h ? [index] : []))
      )
    }))
)

describe("the objective", () => {
  // Worked by hand: backward runs layer 2 (2 s), 1 (3 s), 0 (4 s), so layer 2 is released with 7 s left, 1 with 4, 0 with 0.
  const layers = [layer(4, 1), layer(3, 6), layer(2, 5)]

  it("end of backward, worked by hand", () => {
    const problem = syncProblem(layers, { period: 3, deadline: "end-of-backward" })
    // 2 ends 5 s into the 7 left; 1 waits for it, ends at 11, 4 s late; 0 ends 1 s later still.
    expect(latenessSeconds(problem, [2])).toBe(-2)
    expect(exposedSecondsOf(problem, [1, 2])).toBe(4)
    expect(exposedSecondsOf(problem, [0, 1, 2])).toBe(5)
    expect(exposedSecondsOf(problem, [0])).toBe(1)
    expect(evaluateSets(problem, [[2], [1], [0]])).toEqual({
      perIterationSeconds: [0, 2, 1],
      totalSeconds: 3
    })
  })

  it("next use, worked by hand", () => {
    // Layer 1 is next needed after U0 F0 = 1.5 s of the following forward phase, layer 2 after 3 s, layer 0 at once.
    const problem = syncProblem(layers, { period: 3, deadline: "next-use" })
    expect(exposedSecondsOf(problem, [1, 2])).toBe(2.5)
    expect(latenessSeconds(problem, [2])).toBe(-5)
    expect(exposedSecondsOf(problem, [0, 1, 2])).toBe(5)
    // With the step inside the backward phase, layer 1 is released with U0 more to go and needed U0 earlier.
    const stepFirst = syncProblem(layers, { period: 3, deadline: "next-use", order: "step-then-average" })
    expect(exposedSecondsOf(stepFirst, [1])).toBe(6 - 4.5 - 1)
  })

  it("equals an op-by-op replay of the timeline in steady state", () => {
    let exposed = 0
    let nextUse = 0
    fc.assert(
      fc.property(assigned, ({ instance, sets }) => {
        const { totalSeconds } = evaluateSets(problemOf(instance), sets)
        // 0.5 s updates and whole seconds: every sum is exact.
        expect(replayExposedSeconds(instance, sets, 5)).toBe(totalSeconds)
        if (totalSeconds > 0) exposed++
        if (totalSeconds > 0 && instance.deadline === "next-use") nextUse++
      }),
      { numRuns: 4000 }
    )
    expect(exposed).toBeGreaterThan(1000)
    expect(nextUse).toBeGreaterThan(300)
  })

  it("is superadditive: splitting a set over two iterations never costs more", () => {
    let strictly = 0
    fc.assert(
      fc.property(assigned, ({ instance, sets }) => {
        const problem = problemOf(instance)
        const joint = [...(sets[0] ?? []), ...(sets[1] ?? [])].toSorted((a, b) => a - b)
        const apart = exposedSecondsOf(problem, sets[0] ?? []) + exposedSecondsOf(problem, sets[1] ?? [])
        expect(exposedSecondsOf(problem, joint)).toBeGreaterThanOrEqual(apart)
        if (exposedSecondsOf(problem, joint) > apart) strictly++
      }),
      { numRuns: 2000 }
    )
    expect(strictly).toBeGreaterThan(200)
  })

  it("next use never costs more than end of backward", () => {
    fc.assert(
      fc.property(assigned, ({ instance, sets }) => {
        const cost = (deadline: "end-of-backward" | "next-use") =>
          evaluateSets(problemOf({ ...instance, deadline }), sets).totalSeconds
        expect(cost("next-use")).toBeLessThanOrEqual(cost("end-of-backward"))
      })
    )
  })

  it("refuses broken preconditions", () => {
    expect(() => syncProblem(layers, { period: 0, deadline: "next-use" })).toThrow(RangeError)
    expect(() => syncProblem([layer(-1, 0)], { period: 1, deadline: "next-use" })).toThrow(/layer 0/u)
    const problem = syncProblem(layers, { period: 2, deadline: "next-use" })
    expect(() => evaluateSets(problem, [[0], [1], [2]])).toThrow(/3 sets/u)
    expect(() => evaluateSets(problem, [[0, 0]])).toThrow(/layer 0 twice/u)
    expect(() => evaluateSets(problem, [[3]])).toThrow(/layer 3/u)
  })
})
