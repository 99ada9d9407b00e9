// The executor's machine by itself: typed errors, waits, look-ahead, memory in program order, the clock, and the records it
// leaves.
import { totalmem } from "node:os"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { expect, it, vi } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { localWorld } from "../../exec/bench.ts"
import { execute, executeThen, type Execution } from "../../exec/execute.ts"
import { NativeRank } from "../../exec/native.ts"
import { describeNative } from "../native/addon.ts"

const run = <A>(ranks: number, program: Program<A>, options: Partial<Execution<A>> = {}) =>
  Effect.runPromise(execute({ world: localWorld(ranks), program, ...options }))

const failureOf = async <A>(ranks: number, program: Program<A>, options: Partial<Execution<A>> = {}) => {
  const exit = await Effect.runPromiseExit(execute({ world: localWorld(ranks), program, ...options }))
  if (Exit.isSuccess(exit)) throw new Error("the run succeeded")
  return Cause.squash(exit.cause)
}

const vector = (name: string, elements = 4) => ({ name, shape: [elements], dtype: "float32" as const })
const slowly = (seconds: number): Partial<Execution<never>> => ({
  prepare: (_, op) => (op.label.startsWith("slow") ? { seconds } : undefined)
})

describeNative("the executor", () => {
  it("runs every rank's program, with initial values, zeros, and values read back", async () => {
    const { ranks } = await run(
      3,
      Effect.gen(function* () {
        const machine = yield* Machine
        const x = yield* machine.alloc({
          ...vector("x"),
          initial: () => Float32Array.of(1, 2, 3, 4 + machine.rank)
        })
        const zero = yield* machine.alloc(vector("zero"))
        const y = yield* machine.alloc(vector("y"))
        machine.submit(launch("add", kernels.add, Lane.compute, [x, zero], [y]))
        machine.submit(
          collective("sum", kernels.all_reduce, Lane.inter, machine.world.all, [y], [y], {
            attributes: { reduce: "sum" }
          })
        )
        return [...(yield* machine.read(y))]
      })
    )
    expect(ranks.map(({ value }) => value)).toEqual(Array.from({ length: 3 }, () => [3, 6, 9, 15]))
    expect(ranks.map(({ ops, peakBytes }) => [ops, peakBytes.device])).toEqual(
      Array.from({ length: 3 }, () => [2, 48])
    )
  })

  it("is woken once for all lanes, with the last launched, where the others end before it", async () => {
    const whenEnded = NativeRank.prototype.whenEnded
    const asked: Array<Lane> = []
    const spy = vi.spyOn(NativeRank.prototype, "whenEnded").mockImplementation(function (
      this: NativeRank,
      lane,
      op,
      then
    ) {
      asked.push(lane)
      whenEnded.call(this, lane, op, then)
    })
    const program: Program<number> = Effect.gen(function* () {
      const machine = yield* Machine
      const [x, y] = [yield* machine.alloc(vector("x")), yield* machine.alloc(vector("y"))]
      machine.submit(launch("copy", kernels.copy, Lane.compute, [x], [y]))
      machine.submit(launch("slow copy", kernels.copy, Lane.inter, [y], [x]))
      const drained = yield* Effect.forkChild(machine.drain)
      yield* Effect.sleep(5)
      const before = asked.length
      yield* Fiber.join(drained)
      return before
    })
    const { ranks } = await run(1, program, slowly(0.3)).finally(() => spy.mockRestore())
    expect([ranks[0]!.value, asked]).toEqual([1, [Lane.inter, Lane.compute]])
  })

  it("refuses what does not fit, and gives freed memory to the next, in program order", async () => {
    const program: Program<number> = Effect.gen(function* () {
      const machine = yield* Machine
      const a = yield* machine.alloc(vector("a"))
      const b = yield* machine.alloc(vector("b"))
      for (let i = 0; i < 3; i++) machine.submit(launch("slow copy", kernels.copy, Lane.compute, [a], [b]))
      machine.free(a)
      expect(machine.freeBytes("device")).toBe(24)
      yield* machine.alloc(vector("c"))
      yield* machine.alloc({ ...vector("far", 100), place: "host" })
      yield* machine.alloc(vector("d", 3))
      return 0
    })
    const error = await failureOf(1, program, { ...slowly(0.01), capacityBytes: { device: 40 } })
    expect(error).toMatchObject({
      _tag: "OutOfMemory",
      rank: 0,
      place: "device",
      tensor: "d",
      neededBytes: 12,
      freeBytes: 8,
      capacityBytes: 40
    })
  })

  it("finds collectives that contradict each other when they are submitted", async () => {
    const error = await failureOf(
      2,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const x = yield* machine.alloc(vector("x", rank === 0 ? 4 : 5))
        machine.submit(collective("mean", kernels.all_reduce, Lane.inter, world.all, [x], [x]))
        yield* machine.drain
      })
    )
    expect(error).toMatchObject({ _tag: "CollectiveMismatch", group: "world", position: 0, rank: 1 })
    expect(String(error)).toContain('all_reduce "mean" of 20 B')
  })

  it("finds a deadlock: a member that never comes", async () => {
    const began = performance.now()
    const error = await failureOf(
      3,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const x = yield* machine.alloc(vector("x"))
        if (rank !== 2)
          machine.submit(collective("lonely", kernels.all_reduce, Lane.inter, world.all, [x], [x]))
        machine.submit(launch("after", kernels.copy, Lane.compute, [x], [x]))
        yield* machine.read(x)
      })
    )
    expect(error).toMatchObject({ _tag: "Deadlock" })
    expect(String(error)).toContain('collective 0 of group "world" (lonely): 2 of 3 ranks joined')
    expect(String(error)).toContain('rank 0 waits for tensor "x"')
    expect(performance.now() - began).toBeLessThan(10_000)
  })

  it("finds a deadlock of two collectives that wait for each other across lanes", async () => {
    const error = await failureOf(
      2,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const x = yield* machine.alloc(vector("x"))
        const groups = ["one", "other"].map((name) => ({ name, ranks: world.all.ranks }))
        for (const group of rank === 0 ? groups : groups.toReversed()) {
          machine.submit(collective(group.name, kernels.all_reduce, Lane.inter, group, [x], [x]))
          yield* machine.drain
        }
      })
    )
    expect(error).toMatchObject({ _tag: "Deadlock" })
    expect(String(error)).toMatch(/"one".*1 of 2 ranks joined.*"other".*1 of 2 ranks joined/)
  })

  it("finds one of collectives that all have submitted, in other orders", async () => {
    const error = await failureOf(
      2,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const groups = ["one", "other"].map((name) => ({ name, ranks: world.all.ranks }))
        for (const group of rank === 0 ? groups : groups.toReversed()) {
          const x = yield* machine.alloc(vector(group.name))
          machine.submit(collective(group.name, kernels.all_reduce, Lane.inter, group, [x], [x]))
        }
        yield* machine.drain
      })
    )
    expect(error).toMatchObject({ _tag: "Deadlock" })
    expect(String(error)).toMatch(/"one".*2 of 2 ranks joined.*"other".*2 of 2 ranks joined/)
  })

  it("is no deadlock while someone is slow", async () => {
    const { ranks } = await run(
      2,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const x = yield* machine.alloc(vector("x"))
        if (rank === 1) {
          machine.submit(launch("slow", kernels.copy, Lane.compute, [x], [x]))
          yield* machine.read(x)
          yield* machine.sleepUntil((yield* machine.now) + 0.5)
        }
        machine.submit(collective("mean", kernels.all_reduce, Lane.inter, world.all, [x], [x]))
        yield* machine.drain
        return "met"
      }),
      slowly(0.7)
    )
    expect(ranks.map(({ value }) => value)).toEqual(["met", "met"])
  })

  it("tells what an op's device says is wrong with its values", async () => {
    const error = await failureOf(
      1,
      Effect.gen(function* () {
        const machine = yield* Machine
        const tokens = yield* machine.alloc({
          name: "tokens",
          shape: [2],
          dtype: "int32",
          initial: () => Int32Array.of(1, 7)
        })
        const weight = yield* machine.alloc({ name: "weight", shape: [3, 2], dtype: "float32" })
        const out = yield* machine.alloc({ name: "out", shape: [2, 2], dtype: "float32" })
        machine.submit(launch("look up", kernels["embedding.forward"], Lane.compute, [tokens, weight], [out]))
        yield* machine.drain
      })
    )
    expect(error).toMatchObject({ _tag: "DeviceFault", kind: "value", rank: 0, op: 0 })
    expect(String(error)).toContain("token 7 outside the vocabulary of 3")
  })

  it("names the rank and op at fault, not the rank that notices", async () => {
    const error = await failureOf(
      3,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank, world } = machine
        const tokens = yield* machine.alloc({
          name: "tokens",
          shape: [1],
          dtype: "int32",
          initial: () => Int32Array.of(rank === 1 ? 9 : 0)
        })
        const weight = yield* machine.alloc({ name: "weight", shape: [3, 4], dtype: "float32" })
        const out = yield* machine.alloc({ name: "out", shape: [1, 4], dtype: "float32" })
        machine.submit(launch("slow", kernels.copy, Lane.compute, [out], [out]))
        machine.submit(launch("look up", kernels["embedding.forward"], Lane.compute, [tokens, weight], [out]))
        machine.submit(collective("sum", kernels.all_reduce, Lane.inter, world.all, [out], [out]))
        // The rank at fault goes on to sleep; others wait for it.
        if (rank === 1) yield* Effect.sleep(5000)
        yield* machine.read(out)
      }),
      slowly(0.05)
    )
    expect(error).toMatchObject({ _tag: "DeviceFault", kind: "value", rank: 1, op: 1 })
    expect(String(error)).toContain("rank 1, op 1: ")
  })

  it("has no more memory than the machine, where nothing else is said", async () => {
    const { ranks, capacityBytes } = await run(
      2,
      Effect.map(Machine, (machine) => machine.freeBytes("device"))
    )
    expect(capacityBytes.device).toBeGreaterThan(2 ** 20)
    expect(capacityBytes.device).toBeLessThanOrEqual(totalmem())
    expect(ranks.map(({ value }) => value)).toEqual([capacityBytes.device, capacityBytes.device])
    const error = await failureOf(
      1,
      Effect.flatMap(Machine, (machine) => machine.alloc(vector("vast", 2 ** 52)))
    )
    expect(error).toMatchObject({ _tag: "OutOfMemory", tensor: "vast" })
  })

  it("lets a program be two steps ahead of its compute lane, and answers without waiting what is ready", async () => {
    const { ranks } = await run(
      1,
      Effect.gen(function* () {
        const machine = yield* Machine
        const x = yield* machine.alloc(vector("x"))
        const y = yield* machine.alloc(vector("y"))
        const times: Array<number> = []
        for (let step = 0; step < 4; step++) {
          machine.submit(launch("slow", kernels.copy, Lane.compute, [x], [y]))
          if (step === 0) expect(machine.ready(y)).toBe(false)
          expect(machine.ready(x)).toBe(true)
          yield* machine.endStep
          times.push(yield* machine.now)
        }
        yield* machine.drain
        expect(machine.ready(y)).toBe(true)
        return times
      }),
      slowly(0.6)
    )
    const times = ranks[0]!.value
    // Ends of steps 0 and 1 wait for nothing, that of step 2 for step 0, that of step 3 for step 1.
    expect(times[1]).toBeLessThan(0.6)
    expect(times[2]).toBeGreaterThanOrEqual(0.6)
    expect(times[3]).toBeGreaterThanOrEqual(1.2)
  })

  it("starts all ranks together, however long one takes to build its model", async () => {
    const { timeline } = await run(
      2,
      Effect.gen(function* () {
        const machine = yield* Machine
        const { rank } = machine
        const x = yield* machine.alloc(vector("x"))
        machine.submit(launch("first", kernels.copy, Lane.compute, [x], [x]))
        if (rank === 1) yield* Effect.sleep(1500)
        machine.submit(launch("second", kernels.copy, Lane.compute, [x], [x]))
        yield* machine.drain
      }),
      { record: true }
    )
    expect(Math.max(...timeline!.startSeconds)).toBeLessThan(1)
    expect(Math.min(...timeline!.startSeconds)).toBeGreaterThanOrEqual(0)
  })

  it("keeps what an op found and left, where it is asked to, though the next one overwrites it", async () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({
        ...vector("x"),
        initial: () => Float32Array.of(1, 2, 3, machine.rank)
      })
      const sum = collective("sum", kernels.all_reduce, Lane.inter, machine.world.all, [x], [x], {
        attributes: { reduce: "sum" }
      })
      const ids: Array<number> = []
      for (let i = 0; i < 3; i++) {
        ids.push(machine.submit(sum))
        machine.submit(launch("halve", kernels.scale, Lane.compute, [x], [x], { factor: 0.5 }))
      }
      return ids
    })
    const keeps: Execution<unknown>["keeps"] = ({ group }) => group !== undefined
    const backends = [
      {},
      ...[1, 2, 3, 4].map((seed) => ({ backend: "deferred", settings: { seed } }))
    ] as const
    for (const backend of backends) {
      const kept = await Effect.runPromise(
        executeThen(
          { world: localWorld(2), program, keeps, keepsInputs: keeps, ...backend },
          ({ ranks, resultsOf, inputsOf }) =>
            ranks.map(({ rank, value }) => {
              const found = value.map((op) => inputsOf(rank, op)!.map((data) => [...data]))
              expect(found).toEqual([rank, 0.5, 0.5].map((last) => [[1, 2, 3, last]]))
              expect(inputsOf(rank, value[0]! + 1)).toBeUndefined()
              return [...value, value[0]! + 1].map((op) => resultsOf(rank, op)?.map((data) => [...data]))
            })
        )
      )
      const left = [
        [2, 4, 6, 1],
        [2, 4, 6, 1],
        [2, 4, 6, 1]
      ].map((values) => [values])
      expect(kept).toEqual([
        [...left, undefined],
        [...left, undefined]
      ])
    }
  })

  it("records op logs and times that obey every law, and keeps values to the end", async () => {
    const journals: Array<Journal> = []
    const values: Array<TensorData> = []
    const program: Program<void> = Effect.gen(function* () {
      const machine = yield* Machine
      const { rank, world } = machine
      const far = yield* machine.alloc({
        ...vector("far"),
        place: "host",
        initial: () => Float32Array.of(1, 2, 3, rank)
      })
      const near = yield* machine.alloc(vector("near"))
      const out = yield* machine.alloc(vector("out"))
      for (let step = 0; step < 3; step++) {
        machine.submit(launch("load", kernels.h2d, Lane.h2d, [far], [near]))
        machine.submit(launch("double", kernels.scale, Lane.compute, [near], [out], { factor: 2 }))
        machine.submit(
          collective("mean", kernels.all_reduce, Lane.inter, world.all, [out], [out], {
            attributes: { reduce: "avg" }
          })
        )
        machine.submit(launch("store", kernels.d2h, Lane.d2h, [out], [far]))
        yield* machine.endStep
      }
    })
    const { timeline, opLogs, makespanSeconds } = await Effect.runPromise(
      executeThen({ world: localWorld(2), program: journaled(program, journals), record: true }, (ended) => {
        for (const { rank, entries } of journals)
          for (const entry of entries)
            if (entry.kind === "alloc" && entry.tensor.name === "out")
              values[rank] = ended.valuesOf(rank, entry.tensor)
        return ended
      })
    )
    expect(values.map((data) => [...data])).toEqual(Array.from({ length: 2 }, () => [8, 16, 24, 4]))
    expect(opLogs.map(({ entries }) => entries.length)).toEqual([12, 12])
    expect(opLogs[0]!.entries[1]!.after).toEqual([0])
    expect(timeline!.labels).toEqual(["load", "double", "mean", "store"])
    expect(
      checkLaws({
        timeline: timeline!,
        opLogs,
        journals,
        makespanSeconds,
        lookAheadSteps: 2,
        leaveApart: true
      })
    ).toBeUndefined()
  })
})
