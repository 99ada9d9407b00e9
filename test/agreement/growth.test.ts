// How far values of two runs part from step to step, and whether rounding alone may have done it; and what is read to tell.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { gapsByStep, growthOf, watched } from "../../core/agreement/growth.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

const tensor = { id: 0, name: "x", dtype: "float32", shape: [1] } as unknown as Tensor
/** A run whose program read these, step by step. */
const reading = (rank: number, steps: ReadonlyArray<ReadonlyArray<number>>): Journal => ({
  rank,
  entries: steps.flatMap((values) => [
    ...values.map((value) => ({
      kind: "read" as const,
      tensor,
      writer: 0,
      values: Float32Array.of(value)
    })),
    { kind: "endStep" as const }
  ])
})
/** As far as 1 may be off. */
const most = 8192 * 2 ** -23

describe("how far two runs part", () => {
  it("in a step is as far as what was furthest apart of it, on any rank and whichever was read last", () => {
    const ones = (steps: ReadonlyArray<ReadonlyArray<number>>) => steps.map((values) => values.map(() => 1))
    const off = [[0.25, 0.75, 0.5], [], [2, 0.125]].map((values) => values.map((share) => 1 + share * most))
    const other = [[0.875], [], [1]].map((values) => values.map((share) => 1 + share * most))
    const gaps = gapsByStep(
      [reading(0, ones(off)), reading(1, ones(other))],
      [reading(0, off), reading(1, other)],
      defaultTolerance
    )
    expect(gaps.map(({ step }) => step)).toEqual([0, 1, 2])
    for (const [step, share] of [0.875, 0, 2].entries()) expect(gaps[step]!.ratio).toBeCloseTo(share, 3)
  })

  const growth = (...ratios: ReadonlyArray<number>) =>
    growthOf(ratios.map((ratio, step) => ({ step, ratio })))

  it("is nothing to explain until a step is further apart than it may be", () => {
    expect(growth()).toBeUndefined()
    expect(growth(0, 0.5, 1)).toBeUndefined()
    expect(growth(0, 1.5, 0.5, 3)!.firstBeyond).toBe(1)
  })

  it("is of rounding where no step makes more than 32 times of the gap before it", () => {
    for (const [first, next, ofRounding] of [
      [0.0625, 2, true],
      [0.0625, 2.01, false],
      [0.25, 8, true],
      [0.25, 8.01, false]
    ] as const)
      expect(growth(first, next), `${first} ${next}`).toMatchObject({
        ofRounding,
        steepest: { step: 1, factor: next / first }
      })
  })

  it("takes a gap of 1 / 32 for rounding, whatever was before it, and no smaller one for less", () => {
    expect(growth(0, 0.03, 1)).toBeUndefined()
    // At once beyond what rounding makes of nothing.
    expect(growth(1.01)).toMatchObject({ firstBeyond: 0, ofRounding: false, steepest: { step: 0 } })
    expect(growth(0, 0, 1.01)).toMatchObject({ firstBeyond: 2, ofRounding: false, steepest: { step: 2 } })
    expect(growth(0.03, 1.01)!.ofRounding).toBe(false)
    expect(growth(0.032, 1.01)!.ofRounding).toBe(true)
  })

  it("is measured against the largest gap so far, not the last", () => {
    expect(growth(0.5, 0.001, 1.2)).toMatchObject({
      ofRounding: true,
      steepest: { step: 0, factor: 16 },
      firstBeyond: 2
    })
  })
})

describe("what is watched at the ends of steps", () => {
  it("are tensors that are alive, smallest first, up to so many elements in all", () => {
    const program: Program<void> = Effect.gen(function* () {
      const { alloc, free, endStep, drain } = yield* Machine
      const of = (name: string, elements: number) => alloc({ name, shape: [elements], dtype: "float32" })
      yield* of("eight", 8)
      yield* of("four", 4)
      const gone = yield* of("one", 1)
      yield* of("two", 2)
      yield* endStep
      free(gone)
      yield* endStep
      yield* drain
    })
    const read = (elementsMost: number) => {
      const journals: Array<Journal> = []
      run({
        world: flatWorld(1),
        program: journaled(watched(program, elementsMost), journals),
        values: () => undefined
      })
      const names: Array<string> = []
      for (const entry of journals[0]!.entries)
        if (entry.kind === "endStep") names.push("|")
        else if (entry.kind === "read") names.push(entry.tensor.name)
      return names.join(" ")
    }
    expect(read(0)).toBe("| |")
    expect(read(6)).toBe("| one two | two four")
    expect(read(7)).toBe("| one two four | two four")
    expect(read(15)).toBe("| one two four eight | two four eight")
  })
})
