// What goes wrong in a program is said, in words and with fields: missing members, collectives out of order, links and ranks
// that do not return, memory that does not suffice. And what may not go wrong: reads that come too early, look-ahead.

import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { CollectiveMismatch, Deadlock, Machine, NoValues, OutOfMemory } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { Faults } from "../../sim/faults.ts"
import { execute, failureOf, flatWorld, run } from "./simulated.ts"

const allReduce = (label: string, tensors: ReadonlyArray<Tensor>, world = flatWorld(2).all) =>
  collective(label, kernels.all_reduce, Lane.inter, world, tensors, tensors, {
    attributes: { reduce: "avg" }
  })

const vector = (name: string, elements: number) => ({ name, shape: [elements], dtype: "float32" as const })

const work = (label: string, lane: Lane, tensor: Tensor) =>
  launch(label, kernels.copy, lane, [tensor], [tensor])

const reduceOn = (members: (rank: number) => boolean) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const tensor = yield* machine.alloc(vector("gradient", 1000))
    if (members(machine.rank)) machine.submit(allReduce("all-reduce gradient", [tensor]))
    yield* machine.endStep
  })

describe("deadlocks", () => {
  it("are told with a time that people read", () => {
    const { message } = new Deadlock({ atSeconds: 0.1 + 0.2, waiting: ["rank 0 waits for step 1"] })
    expect(message).toBe("no progress possible after 300 ms; waiting: rank 0 waits for step 1")
  })

  it("of a collective that one member never joins", () => {
    const error = failureOf({
      world: flatWorld(2, { bytesPerSecond: 1e9, latencySeconds: 0 }),
      program: reduceOn((rank) => rank === 0),
      symmetric: false
    })
    expect(error).toBeInstanceOf(Deadlock)
    expect(String(error)).toContain(
      'collective 0 of group "world" (all-reduce gradient): 1 of 2 ranks joined, not rank 1'
    )
    expect(String(error)).toContain("rank 0 waits for everything submitted")
  })

  it("of a link that stays down", () => {
    const down = {
      kind: "link",
      tier: "inter",
      owner: 1,
      fromSeconds: 0,
      untilSeconds: Infinity,
      change: { bytesPerSecond: 0 }
    } as const
    const error = failureOf({
      world: flatWorld(2, { bytesPerSecond: 1e9, latencySeconds: 0 }),
      program: reduceOn(() => true),
      faults: new Faults([down])
    })
    expect(error).toBeInstanceOf(Deadlock)
    expect(String(error)).toMatch(/a transfer waits for inter out node 1, inter in node 1: no bandwidth/)
  })

  it("of a rank that never returns", () => {
    const gone = { kind: "rank", rank: 1, fromSeconds: 1, untilSeconds: Infinity, factor: 0 } as const
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const tensor = yield* machine.alloc(vector("x", 1))
      machine.submit(work("long", Lane.compute, tensor))
      yield* machine.drain
    })
    const error = failureOf({
      world: flatWorld(2),
      program,
      costs: { seconds: () => 2, estimates: [] },
      faults: new Faults([gone])
    })
    expect(error).toBeInstanceOf(Deadlock)
    expect(String(error)).toContain("a kernel waits for a rank that does not return")
    expect(String(error)).toContain("rank 1 waits for everything submitted")
    expect(String(error)).not.toContain("rank 0 waits")
  })
})

describe("collectives out of order", () => {
  const swapped = (first: number, second: number) =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const a = yield* machine.alloc(vector("a", first))
      const b = yield* machine.alloc(vector("b", second))
      const ops = [allReduce("all-reduce a", [a]), allReduce("all-reduce b", [b])]
      for (const op of machine.rank === 1 ? ops.toReversed() : ops) machine.submit(op)
      yield* machine.drain
    })

  it("are found at once, and said with both sides", () => {
    const error = failureOf({ world: flatWorld(3), program: swapped(10, 20), symmetric: false })
    expect(error).toBeInstanceOf(CollectiveMismatch)
    const { group, position, rank, expectedByRank } = error as CollectiveMismatch
    expect({ group, position, rank, expectedByRank }).toEqual({
      group: "world",
      position: 0,
      rank: 1,
      expectedByRank: 0
    })
    expect(String(error)).toContain(
      'rank 1 submitted all_reduce "all-reduce b" of 80 B, rank 0 had submitted all_reduce "all-reduce a" of 40 B'
    )
  })

  it("of one size go through, as on a device, and give wrong values", () => {
    const world = flatWorld(2)
    const { values, ranks } = run({
      world,
      program: swapped(1, 1),
      values: (rank, { name }) => Float32Array.of(name === "a" ? 1 + 2 * rank : 10)
    })
    expect(ranks).toHaveLength(2)
    const at = (id: number) => values!.of(0, { ...vector("", 1), id } as unknown as Tensor)[0]
    // Averages of a would be 2, of b 10; the swap mixes them.
    expect([at(0), at(1)]).toEqual([5.5, 6.5])
  })
})

describe("memory", () => {
  it("that does not suffice is an error with its figures, and nothing is allocated", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const first = yield* machine.alloc(vector("first", 10))
      const refused = yield* Effect.match(machine.alloc(vector("second", 16)), {
        onFailure: (error) => error,
        onSuccess: () => undefined
      })
      expect(machine.freeBytes("device")).toBe(60)
      machine.free(first)
      yield* machine.alloc(vector("third", 25))
      return refused
    })
    const { ranks } = run({ world: flatWorld(1), program, capacityBytes: { device: 100 } })
    const [rank] = ranks
    expect(rank!.peakBytes).toEqual({ device: 100, host: 0 })
    expect(rank!.value).toBeInstanceOf(OutOfMemory)
    const { place, tensor, neededBytes, freeBytes, capacityBytes } = rank!.value!
    expect({ rank: rank!.value!.rank, place, tensor, neededBytes, freeBytes, capacityBytes }).toEqual({
      rank: 0,
      place: "device",
      tensor: "second",
      neededBytes: 64,
      freeBytes: 60,
      capacityBytes: 100
    })
    expect(
      failureOf({
        world: flatWorld(1),
        program: Effect.flatMap(Machine, (machine) => machine.alloc(vector("big", 100))),
        capacityBytes: { device: 399 }
      })
    ).toBeInstanceOf(OutOfMemory)
  })
})

describe("reads", () => {
  it("of a collective's result have all members' values, however early they were asked for", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const tensor = yield* machine.alloc(vector("x", 1))
      const other = yield* machine.alloc(vector("other", 1))
      // Rank 0 has joined and asked before rank 1 joins.
      if (machine.rank === 1) {
        machine.submit(work("first something else", Lane.compute, other))
        yield* machine.read(other)
      }
      machine.submit(allReduce("all-reduce", [tensor]))
      return (yield* machine.read(tensor))[0]
    })
    const { ranks } = run({
      world: flatWorld(2),
      program,
      costs: { seconds: () => 1, estimates: [] },
      values: (rank) => Float32Array.of(rank + 1)
    })
    expect(ranks.map(({ value }) => value)).toEqual([1.5, 1.5])
  })

  it("without values are an error that names the tensor", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      return yield* machine.read(yield* machine.alloc(vector("routes", 1)))
    })
    const error = failureOf({ world: flatWorld(1), program })
    expect(error).toBeInstanceOf(NoValues)
    expect(String(error)).toContain('tensor "routes"')
    const { ranks } = run({ world: flatWorld(1), program, source: () => Float32Array.of(7) })
    expect(ranks[0]!.value[0]).toBe(7)
  })
})

describe("look-ahead", () => {
  it("lets a program run so many steps ahead of its compute lane and no further", () => {
    const property = fc.property(
      fc.integer({ min: 0, max: 4 }),
      fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 10 }),
      (lookAhead, steps) => {
        // Costs are found by the op's label.
        const secondsOf = (label: string): number => steps[Number(/^step (\d+)$/u.exec(label)?.[1])] ?? 0
        // A copy that waits for nothing starts when it is submitted: it shows how far the program has come.
        const program = Effect.gen(function* () {
          const machine = yield* Machine
          const x = yield* machine.alloc(vector("x", 1))
          for (let step = 0; step < steps.length; step++) {
            const probe = yield* machine.alloc(vector("probe", 1))
            machine.submit(work("probe", Lane.h2d, probe))
            machine.submit(work(`step ${step}`, Lane.compute, x))
            yield* machine.endStep
          }
        })
        const { execution } = execute({
          world: flatWorld(1),
          program,
          lookAhead,
          costs: { seconds: ({ label }) => secondsOf(label), estimates: [] }
        })
        const ends = steps.map((_, step) =>
          steps.slice(0, step + 1).reduce((sum, seconds) => sum + seconds, 0)
        )
        const { timeline } = execution
        for (let row = 0; row < timeline.op.length; row++) {
          if (timeline.lane[row] !== Lane.h2d) continue
          expect(timeline.startSeconds[row]).toBe(ends[timeline.step[row]! - 1 - lookAhead] ?? 0)
        }
      }
    )
    fc.assert(property)
  })
})
