// What a program waits for: several things at once, ends of steps, ops that ended long ago, and what is not of its machine.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { describeContract, failureOn, runOn } from "./machines.ts"

type Service = Machine["Service"]

const vector = (machine: Service, name: string, value = 0) =>
  machine.alloc({ name, shape: [1], dtype: "float32", initial: () => Float32Array.of(value) })

const slowSeconds = 0.03
const slowly = { seconds: (label: string) => (label.startsWith("slow") ? slowSeconds : 0) }

describeContract("waits", (machine) => {
  it("for several reads at once, of lanes that end in either order", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const [a, b] = [yield* vector(service, "a", 1), yield* vector(service, "b", 2)]
      const [x, y] = [yield* vector(service, "x"), yield* vector(service, "y")]
      service.submit(launch("slow", kernels.copy, Lane.compute, [a], [x]))
      service.submit(launch("fast", kernels.copy, Lane.inter, [b], [y]))
      const both = yield* Effect.all([service.read(x), service.read(y), service.read(y)], {
        concurrency: "unbounded"
      })
      return both.map((values) => values[0])
    })
    const { ranks } = await runOn(machine, 2, program, slowly)
    expect(ranks.map(({ value }) => value)).toEqual([
      [1, 2, 2],
      [1, 2, 2]
    ])
  })

  it("for a read and the end of a step at once", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x", 1)
      service.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
      const [values] = yield* Effect.all([service.read(x), service.endStep, service.drain], {
        concurrency: "unbounded"
      })
      return values[0]
    })
    const { ranks } = await runOn(machine, 1, program, { ...slowly, lookAhead: 0 })
    expect(ranks[0]!.value).toBe(1)
  })

  it("with a look-ahead of 0 for each step's own end, with 1 for that of the one before", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x")
      const ready: Array<boolean> = []
      for (let step = 0; step < 2; step++) {
        service.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
        yield* service.endStep
        ready.push(service.ready(x))
      }
      return ready
    })
    const at = async (lookAhead: number) =>
      (await runOn(machine, 1, program, { ...slowly, lookAhead })).ranks[0]!.value
    expect(await at(0)).toEqual([true, true])
    expect(await at(1)).toEqual([false, false])
  })

  it.each([1, 2, 4, 1024])(
    "for an op as far back as a ring of %i has places, and none of them yet free",
    async (ring) => {
      const program = Effect.gen(function* () {
        const service = yield* Machine
        const [x, y] = [yield* vector(service, "x", 1), yield* vector(service, "y", 5)]
        const out = yield* vector(service, "out")
        const z = yield* vector(service, "z", 2)
        const results: Array<number> = []
        for (const back of [ring - 1, ring, ring + 1]) {
          service.submit(launch("slow", kernels.add, Lane.compute, [x, y], [x]))
          // Other lanes go on meanwhile.
          for (let i = 1; i < back; i++) service.submit(launch("fast", kernels.copy, Lane.intra, [z], [z]))
          service.submit(launch("after", kernels.copy, Lane.inter, [x], [out]))
          results.push((yield* service.read(out))[0]!)
        }
        return results
      })
      const { ranks, opLogs } = await runOn(machine, 1, program, { ...slowly, ring })
      expect(ranks[0]!.value).toEqual([6, 11, 16])
      const after = opLogs[0]!.entries.filter(({ label }) => label === "after")
      expect(after.map(({ op, after: edges }) => op - edges[0]!)).toEqual(
        [ring - 1, ring, ring + 1].map((back) => Math.max(1, back))
      )
    }
  )

  it("for the writers of more tensors than any table begins with", async () => {
    const count = 700
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const tensors: Array<Tensor> = []
      for (let i = 0; i < count; i++) tensors.push(yield* vector(service, `t${i}`, i % 13))
      // Each takes the one before, from another lane.
      for (let i = 1; i < count; i++) {
        const [a, b] = [tensors[i - 1]!, tensors[i]!]
        service.submit(launch(`add ${i}`, kernels.add, (i % 5) as Lane, [a, b], [b]))
      }
      const last = (yield* service.read(tensors.at(-1)!))[0]!
      const middle = (yield* service.read(tensors[count / 2]!))[0]!
      return [middle, last]
    })
    const sumTo = (end: number): number =>
      Array.from({ length: end + 1 }, (_, i) => i % 13).reduce((a, b) => a + b, 0)
    const { ranks } = await runOn(machine, 1, program, { ring: 4 })
    expect(ranks[0]!.value).toEqual([sumTo(count / 2), sumTo(count - 1)])
  })

  it("that are interrupted are forgotten", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x", 1)
      service.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
      yield* Effect.raceFirst(service.read(x), Effect.void)
      return (yield* service.read(x))[0]
    })
    const { ranks } = await runOn(machine, 1, program, slowly)
    expect(ranks[0]!.value).toBe(1)
  })

  it("end where another rank fails, and their programs give back what they hold", async () => {
    const released: Array<number> = []
    const program = Effect.gen(function* () {
      const service = yield* Machine
      yield* Effect.acquireUseRelease(
        Effect.succeed(service.rank),
        (rank) =>
          rank === 0
            ? // By then all have begun.
              Effect.andThen(
                service.sleepUntil(0.01),
                service.alloc({ name: "too much", shape: [1000], dtype: "float32" })
              )
            : service.sleepUntil(60),
        (rank) => Effect.sync(() => released.push(rank))
      )
    })
    const error = await failureOn(machine, 3, program, { capacityBytes: { device: 2000 } })
    expect(error).toMatchObject({ _tag: "OutOfMemory", rank: 0 })
    expect(released.toSorted()).toEqual([0, 1, 2])
  })

  it("end where the run is interrupted, and their programs give back what they hold", async () => {
    const held = new Set<number>()
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x")
      const op = launch("forever", kernels.copy, Lane.compute, [x], [x])
      const forever = Effect.forever(
        Effect.andThen(
          Effect.sync(() => service.submit(op)),
          service.endStep
        )
      )
      yield* Effect.acquireUseRelease(
        Effect.sync(() => held.add(service.rank)),
        () => forever,
        () => Effect.sync(() => held.delete(service.rank))
      )
    })
    const fiber = Effect.runFork(machine.run(2, program, { lookAhead: 0 }))
    while (held.size < 2) await new Promise((resolve) => setImmediate(resolve))
    await Effect.runPromise(Fiber.interrupt(fiber))
    expect([...held]).toEqual([])
  })

  it("until a moment end when it has come, and no sooner", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const early: Array<number> = []
      for (let i = 0; i < 20; i++) {
        const moment = (yield* service.now) + 1.3e-3 + 1e-4 * i
        yield* service.sleepUntil(moment)
        early.push(moment - (yield* service.now))
      }
      return Math.max(...early)
    })
    const { ranks } = await runOn(machine, 1, program)
    expect(ranks[0]!.value).toBeLessThanOrEqual(1e-12)
  })

  it("in Effect.sleep pass on the machine's own clock", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x")
      service.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
      yield* service.sleepUntil(0.001)
      const before = yield* service.now
      // Once where time is simulated; on a machine that others keep busy a thread may come to its op later.
      for (let slept = 0; slept < 100 && !(slept > 0 && service.ready(x)); slept++)
        yield* Effect.sleep("50 millis")
      return [service.ready(x), (yield* service.now) - before] as const
    })
    const { ranks } = await runOn(machine, 1, program, slowly)
    const [ready, seconds] = ranks[0]!.value
    expect(ready).toBe(true)
    expect(seconds).toBeGreaterThan(0.049)
  })

  it("for what is not of the machine: passes where it has host time, is refused where it has none", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x", 1)
      service.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
      const value = yield* Effect.promise(() => new Promise<number>((resolve) => setTimeout(resolve, 5, 7)))
      return value + (yield* service.read(x))[0]!
    })
    if (machine.hostTime) {
      const { ranks } = await runOn(machine, 2, program, slowly)
      expect(ranks.map(({ value }) => value)).toEqual([8, 8])
    } else {
      const error = await failureOn(machine, 2, program, slowly)
      expect(error).toMatchObject({ _tag: "Misuse", call: "suspend" })
    }
  })
})
