// Kernels that are slower beside collectives: closed forms of when they end, also while a collective waits for another rank; and a
// slowdown of 1 changes nothing.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import { flatWorld, run } from "./simulated.ts"

/** Seconds by label. */
const costsOf = (seconds: Readonly<Record<string, number>>): CostModel => ({
  seconds: ({ label }) => seconds[label] ?? 0,
  estimates: []
})

/**
 * Two ranks: each computes `compute` seconds on a tensor of its own; rank 1 comes `late` to an all-reduce of 1 byte a second that
 * takes `message` seconds. When the compute lanes have finished, by rank, and how long they were busy.
 */
const computed = (compute: number, late: number, message: number, slowdown: number | undefined) => {
  const { ranks } = run({
    world: flatWorld(2, { bytesPerSecond: 1e6, latencySeconds: 0 }),
    costs: costsOf({ compute, late }),
    collectives: { algorithm: "ring", ...(slowdown === undefined ? {} : { slowdown }) },
    symmetric: false,
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const own = yield* machine.alloc({ name: "own", shape: [1], dtype: "float32" })
      // A ring of two sends as many bytes as the message has.
      const elements = Math.round((message * 1e6) / 4)
      const sent = yield* machine.alloc({ name: "sent", shape: [elements], dtype: "float32" })
      if (machine.rank === 1) machine.submit(launch("late", kernels.barrier, Lane.h2d, [sent], []))
      machine.submit(
        collective("all-reduce", kernels.all_reduce, Lane.inter, machine.world.all, [sent], [sent])
      )
      machine.submit(launch("compute", kernels.barrier, Lane.compute, [own], []))
      yield* machine.endStep
      return
    })
  })
  return ranks.map(
    ({ stepEndSeconds, stepBusySeconds }) => [stepEndSeconds[0]!, stepBusySeconds[0]!] as const
  )
}

/** When work of so many seconds ends that is slower from `from` to `to`. */
const closedForm = (seconds: number, from: number, to: number, slowdown: number): number => {
  if (seconds <= from) return seconds
  const slow = (seconds - from) * slowdown
  return slow <= to - from ? from + slow : to + seconds - from - (to - from) / slowdown
}

describe("a rank's kernels beside its collectives", () => {
  it("end when the closed form says, also where it waits for another rank", () => {
    const seen = { within: 0, beyond: 0, waited: 0 }
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom(1.25, 1.5, 2, 4),
        (compute, late, message, slowdown) => {
          const [first, second] = computed(compute, late, message, slowdown)
          const ended = late + message
          // Rank 0's kernel waits from the beginning for a rank that comes late; rank 1's is there when it comes.
          const expected = [
            closedForm(compute, 0, ended, slowdown),
            closedForm(compute, late, ended, slowdown)
          ]
          expect(first![0]).toBeCloseTo(expected[0]!, 6)
          expect(second![0]).toBeCloseTo(expected[1]!, 6)
          expect(first![1]).toBeCloseTo(expected[0]!, 6)
          seen[expected[0]! <= ended ? "within" : "beyond"]++
          if (late > 0) seen.waited++
        }
      )
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(5)
  })

  it("are as they are where nothing slows them", () => {
    for (const slowdown of [undefined, 1]) {
      const [first, second] = computed(10, 3, 4, slowdown)
      expect([first![0], second![0]]).toEqual([10, 10])
    }
  })

  it("take no notice of a collective of one rank", () => {
    const { ranks } = run({
      world: flatWorld(1),
      costs: costsOf({ compute: 5 }),
      collectives: { algorithm: "ring", slowdown: 4 },
      program: Effect.gen(function* () {
        const machine = yield* Machine
        const own = yield* machine.alloc({ name: "own", shape: [1], dtype: "float32" })
        machine.submit(
          collective("all-reduce", kernels.all_reduce, Lane.inter, machine.world.all, [own], [own])
        )
        machine.submit(launch("compute", kernels.barrier, Lane.compute, [own], []))
        yield* machine.endStep
        return
      })
    })
    expect(ranks[0]!.stepEndSeconds[0]).toBeCloseTo(5, 9)
  })
})
