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
import { acrossNodesGroup, makeWorld, nodeGroup } from "../../core/world.ts"
import { Faults } from "../../sim/faults.ts"
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
const computed = (
  compute: number,
  late: number,
  message: number,
  slowdown: number | undefined,
  options: { readonly faults?: Faults; readonly network?: "fluid" | "alpha-beta" } = {}
) => {
  const { ranks } = run({
    world: flatWorld(2, { bytesPerSecond: 1e6, latencySeconds: 0 }),
    ...options,
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

  it("are as slow as their rank besides: a straggler, a pause and both at once", () => {
    const seen = { paused: 0, slowed: 0, within: 0, beyond: 0 }
    const change = fc.record({
      at: fc.integer({ min: 0, max: 20 }),
      factor: fc.constantFrom(0, 0.25, 0.5, 2)
    })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 12 }),
        change,
        fc.constantFrom(1.25, 2, 4),
        fc.constantFrom("fluid" as const, "alpha-beta" as const),
        (compute, message, lasts, { at, factor }, slowdown, network) => {
          const faults = new Faults([
            { kind: "rank", rank: 0, factor, fromSeconds: at, untilSeconds: at + lasts }
          ])
          const [first, second] = computed(compute, 0, message, slowdown, { faults, network })
          // Work done by a time, in closed form: the speed is constant between these.
          const times = [0, at, at + lasts, message].toSorted((a, b) => a - b)
          let left = compute
          let end = Infinity
          for (const [i, from] of times.entries()) {
            const until = times[i + 1] ?? Infinity
            const speed = (from >= at && from < at + lasts ? factor : 1) / (from < message ? slowdown : 1)
            if (end === Infinity && speed > 0 && left <= speed * (until - from)) end = from + left / speed
            left -= speed === 0 ? 0 : speed * (until - from)
          }
          expect(first![0]).toBeCloseTo(end, 6)
          // In a pause nothing is computed.
          const paused = factor === 0 ? Math.max(0, Math.min(end, at + lasts) - at) : 0
          expect(first![1]).toBeCloseTo(end - paused, 6)
          expect(second![0]).toBeCloseTo(closedForm(compute, 0, message, slowdown), 6)
          if (end > at && factor === 0) seen.paused++
          if (end > at && factor > 0) seen.slowed++
          seen[end <= message ? "within" : "beyond"]++
        }
      )
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(5)
  })

  it("say that a rank does not return, as kernels do that nothing slows", () => {
    const faults = new Faults([{ kind: "rank", rank: 0, factor: 0, fromSeconds: 1, untilSeconds: Infinity }])
    for (const slowdown of [1, 2])
      expect(() => computed(10, 0, 4, slowdown, { faults })).toThrow("waits for a rank that does not return")
  })

  it("are let go by the same ops", () => {
    const causesOf = (slowdown: number): ReadonlyArray<number> => {
      const { timeline } = run({
        world: flatWorld(3, { bytesPerSecond: 1e6, latencySeconds: 0 }),
        costs: costsOf({ first: 1, own: 2 }),
        collectives: { algorithm: "ring", slowdown },
        faults: new Faults([{ kind: "rank", rank: 1, factor: 0.5, fromSeconds: 0, untilSeconds: Infinity }]),
        symmetric: false,
        record: true,
        program: Effect.gen(function* () {
          const machine = yield* Machine
          const tensor = yield* machine.alloc({ name: "sent", shape: [1000], dtype: "float32" })
          const all = machine.world.all
          for (let step = 0; step < 3; step++) {
            machine.submit(launch("first", kernels.copy, Lane.compute, [tensor], [tensor]))
            machine.submit(collective("sum", kernels.all_reduce, Lane.inter, all, [tensor], [tensor]))
            machine.submit(collective("again", kernels.all_reduce, Lane.inter, all, [tensor], [tensor]))
            machine.submit(launch("own", kernels.copy, Lane.compute, [tensor], [tensor]))
            yield* machine.endStep
          }
        })
      })
      return [...timeline!.cause]
    }
    const usual = causesOf(1)
    // Nothing lets each rank's first kernel go.
    expect(usual.filter((cause) => cause < 0)).toHaveLength(3)
    expect(causesOf(1 + 1e-9)).toEqual(usual)
  })

  it("are as they are where nothing slows them", () => {
    for (const slowdown of [undefined, 1]) {
      const [first, second] = computed(10, 3, 4, slowdown)
      expect([first![0], second![0]]).toEqual([10, 10])
    }
  })

  it("are slower beside collectives between nodes than beside those inside, or the other way round, and as slow as the slower of both", () => {
    /** Two nodes of two: seconds of messages inside a node and between nodes, both from the beginning. */
    const endOf = (inside: number, between: number, slowdown: number, slowdownInside?: number): number => {
      const { ranks } = run({
        world: makeWorld([{ name: "site", nodes: [2, 2] }], {
          intra: { bytesPerSecond: 1e6, latencySeconds: 0 },
          inter: { bytesPerSecond: 1e6, latencySeconds: 0 },
          wan: undefined
        }),
        costs: costsOf({ compute: 10 }),
        collectives: { algorithm: "ring", slowdown, slowdownInside },
        symmetric: false,
        program: Effect.gen(function* () {
          const machine = yield* Machine
          const { world, rank } = machine
          const groups = [
            [nodeGroup(world, rank), Lane.intra, inside],
            // both of a node share its link
            [acrossNodesGroup(world, rank), Lane.inter, between / 2]
          ] as const
          const own = yield* machine.alloc({ name: "own", shape: [1], dtype: "float32" })
          for (const [group, lane, seconds] of groups) {
            if (seconds === 0) continue
            const shape = [Math.round((seconds * 1e6) / 4)]
            const sent = yield* machine.alloc({ name: group.name, shape, dtype: "float32" })
            machine.submit(collective("all-reduce", kernels.all_reduce, lane, group, [sent], [sent]))
          }
          machine.submit(launch("compute", kernels.barrier, Lane.compute, [own], []))
          yield* machine.endStep
          return
        })
      })
      return ranks[0]!.stepEndSeconds[0]!
    }
    expect(endOf(4, 0, 2, 4)).toBeCloseTo(closedForm(10, 0, 4, 4), 6)
    expect(endOf(0, 4, 2, 4)).toBeCloseTo(closedForm(10, 0, 4, 2), 6)
    // one alone is told: it is that of both, or the other slows nothing
    expect(endOf(4, 0, 2)).toBeCloseTo(closedForm(10, 0, 4, 2), 6)
    expect(endOf(4, 0, 1, 2)).toBeCloseTo(closedForm(10, 0, 4, 2), 6)
    expect(endOf(0, 4, 1, 2)).toBeCloseTo(10, 6)
    // 4 s at a quarter beside both, 4 s at a half, the rest alone
    expect(endOf(4, 8, 2, 4)).toBeCloseTo(8 + 10 - 1 - 2, 6)
    expect(endOf(8, 4, 2, 4)).toBeCloseTo(8 + 10 - 2, 6)
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
