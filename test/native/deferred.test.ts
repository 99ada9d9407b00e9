// The deferred backend through its typed side: right programs give their values under any order, a program that leaves an edge
// out does not, and what a launch is told is what it was told then.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Dependencies, touchedBy } from "../../core/machine/dependencies.ts"
import { Lane, laneCount } from "../../core/machine/lane.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import type { NativeRank } from "../../exec/native.ts"
import { describeNative, tensorOn, withSession } from "./addon.ts"
import { scalarLaunches as launches, tensorsOf } from "./cases/scalar-launches.ts"

const deferred = (seed: number, ranks = 1) => ({ ranks, backend: "deferred", settings: { seed } }) as const

const readOf = (rank: NativeRank, tensor: Tensor): Promise<TensorData> =>
  new Promise((resolve) => rank.whenRead(tensor, resolve))

const filled = (rank: NativeRank, value: number): Tensor =>
  tensorOn(rank, [64], "float32", new Float32Array(64).fill(value))

/** A program of moves and sums between buffers that come and go, over all lanes. */
const steps = fc.array(
  fc.record({
    lane: fc.integer({ min: 0, max: laneCount - 1 }),
    what: fc.constantFrom("add", "copy", "replace"),
    from: fc.integer({ min: 0, max: 3 }),
    to: fc.integer({ min: 0, max: 3 })
  }),
  { minLength: 5, maxLength: 60, size: "max" }
)

interface Outcome {
  readonly values: ReadonlyArray<number>
  readonly expected: ReadonlyArray<number>
  readonly edges: number
}

/** Runs it with all edges, or with none. */
const outcome = (
  program: ReadonlyArray<{
    readonly lane: number
    readonly what: string
    readonly from: number
    readonly to: number
  }>,
  seed: number,
  edgesToo: boolean
): Promise<Outcome> =>
  withSession(deferred(seed), async (session, rank) => {
    const dependencies = new Dependencies()
    rank!.takeEdgesFrom(dependencies.edges)
    const tensors = Array.from({ length: 4 }, (_, i) => filled(rank!, i + 1))
    for (const tensor of tensors) dependencies.allocated(tensor)
    const expected = tensors.map((_, i) => i + 1)
    let edges = 0
    let next = 0
    const submit = (op: Op): void => {
      dependencies.derive(next, op.lane, touchedBy(op))
      edges += dependencies.edgeCount
      next = rank!.submit(op, edgesToo ? dependencies.edgeCount : 0) + 1
    }
    for (const { lane, what, from, to } of program) {
      if (what === "replace") {
        // its memory is another's before its last op has run
        const source = (to + 1 + (from % 3)) % 4
        rank!.free(tensors[to]!)
        tensors[to] = tensorOn(rank!, [64])
        dependencies.allocated(tensors[to])
        expected[to] = expected[source]!
        submit(launch("copy", kernels.copy, lane as Lane, [tensors[source]!], [tensors[to]]))
      } else {
        const reads = what === "add" ? [tensors[from]!, tensors[to]!] : [tensors[from]!]
        expected[to] = what === "add" ? Math.fround(expected[from]! + expected[to]!) : expected[from]!
        submit(launch(what, kernels[what as "add"], lane as Lane, reads, [tensors[to]!]))
      }
    }
    const values: Array<number> = []
    for (const tensor of tensors) {
      const data = await readOf(rank!, tensor)
      values.push(new Set(data).size === 1 ? data[0]! : Number.NaN)
    }
    expect(session.fault).toBeUndefined()
    return { values, expected, edges }
  })

describeNative("the deferred backend", () => {
  it("gives the values of program order, whatever order it draws", async () => {
    let edges = 0
    await fc.assert(
      fc.asyncProperty(steps, fc.nat(), async (program, seed) => {
        const result = await outcome(program, seed, true)
        edges += result.edges
        expect(result.values).toEqual(result.expected)
      }),
      { numRuns: 60 }
    )
    expect(edges).toBeGreaterThan(500)
  })

  it("has values out before anything overwrites them, by whatever name in their arena", async () => {
    const sizes = { dtype: "float32", place: "device", shape: [64], elements: 64, sizeBytes: 256 } as const
    for (let seed = 0; seed < 40; seed++) {
      await withSession(deferred(seed), async (_, rank) => {
        const [ones, twos] = [filled(rank!, 1), filled(rank!, 2)]
        const arena = tensorOn(rank!, [64])
        const views = [0, 1].map((i): Tensor => ({ ...sizes, id: arena.id + 1000 + i, name: `view ${i}` }))
        const [first, second] = views as [Tensor, Tensor]
        for (const view of views) rank!.view(view, arena, 0)
        const copy = (from: Tensor, to: Tensor) =>
          rank!.submit(launch("copy", kernels.copy, Lane.compute, [from], [to]), 0)
        copy(ones, first)
        const viewed = readOf(rank!, first)
        copy(twos, second)
        copy(twos, arena)
        const whole = readOf(rank!, arena)
        copy(ones, first)
        expect(new Set(await viewed), `seed ${seed}`).toEqual(new Set([1]))
        expect(new Set(await whole), `seed ${seed}`).toEqual(new Set([2]))
      })
    }
  })

  it("has what an op finds there, by whatever name and lane it was written, and nothing later", async () => {
    const sizes = { dtype: "float32", place: "device", shape: [64], elements: 64, sizeBytes: 256 } as const
    let early = 0
    for (let seed = 0; seed < 40; seed++) {
      await withSession(deferred(seed), async (_, rank) => {
        const [ones, twos, result] = [filled(rank!, 1), filled(rank!, 2), tensorOn(rank!, [64])]
        const arena = tensorOn(rank!, [64])
        const view: Tensor = { ...sizes, id: arena.id + 1000, name: "view" }
        rank!.view(view, arena, 0)
        const edges = new Int32Array(8)
        rank!.takeEdgesFrom(edges)
        const copy = (from: Tensor, to: Tensor, lane: Lane, count = 0) =>
          rank!.submit(launch("copy", kernels.copy, lane, [from], [to]), count)
        // It was written as the arena, in another lane; the view's own name tells nothing of that.
        edges[0] = copy(twos, arena, Lane.inter)
        const unaware = readOf(rank!, view)
        const op = launch("use", kernels.copy, Lane.compute, [view], [result])
        const found = new Promise<TensorData>((resolve) => rank!.whenFound(view, op, 1, resolve))
        rank!.submit(op, 1)
        copy(ones, arena, Lane.compute)
        expect(new Set(await found), `seed ${seed}`).toEqual(new Set([2]))
        // Its own lane needs no edge.
        const again = new Promise<TensorData>((resolve) => rank!.whenFound(view, op, 0, resolve))
        rank!.submit(op, 0)
        copy(twos, arena, Lane.compute)
        expect(new Set(await again), `seed ${seed}`).toEqual(new Set([1]))
        if ((await unaware)[0] !== 2) early++
      })
    }
    expect(early).toBeGreaterThan(0)
  })

  it("shows that edges are missing", async () => {
    let wrong = 0
    let inNeed = 0
    await fc.assert(
      fc.asyncProperty(steps, fc.nat(), async (program, seed) => {
        const { values, expected, edges } = await outcome(program, seed, false)
        if (edges < 10) return
        inNeed++
        if (values.some((value, i) => !Object.is(value, expected[i]))) wrong++
      }),
      { numRuns: 40 }
    )
    expect(inNeed).toBeGreaterThan(15)
    expect(wrong).toBeGreaterThan(0.9 * inNeed)
  })

  it("runs the same program in one order for each seed", async () => {
    const order = (seed: number, pauseMillis = 0) =>
      withSession({ ...deferred(seed), timed: true }, async (_, rank) => {
        const tensors = Array.from({ length: laneCount }, (_, i) => filled(rank!, i))
        const ops = tensors.map((tensor, lane) =>
          launch("copy", kernels.copy, lane as Lane, [tensor], [tensor])
        )
        for (let i = 0; i < 20; i++) {
          rank!.submit(ops[i % laneCount]!, 0)
          // The program is slow, as on a busy machine.
          const until = performance.now() + (i % 4 === 1 ? pauseMillis : 0)
          while (performance.now() < until);
        }
        await new Promise<void>((resolve) => rank!.whenDrained(resolve))
        return rank!
          .takeTimes()
          .toSorted((a, b) => a.endSeconds - b.endSeconds)
          .map(({ op }) => op)
      })
    expect(await order(3)).toEqual(await order(3))
    expect(await order(3, 20)).toEqual(await order(3))
    expect(await order(3)).not.toEqual(await order(4))
  })

  it("meets in collectives, and ends when one member never comes", async () => {
    await withSession(deferred(1, 3), async (session, ...ranks) => {
      const group = { name: "world", ranks: [0, 1, 2] }
      const tensors = ranks.map((rank, i) => filled(rank, i + 1))
      const submitted = ranks.map((rank, i) => {
        const op: Op = {
          ...launch("sum", kernels.all_reduce, Lane.inter, [tensors[i]!], [tensors[i]!]),
          group
        }
        rank.submit(op, 0)
        return op
      })
      for (const [i, rank] of ranks.entries())
        expect(new Set(await readOf(rank, tensors[i]!))).toEqual(new Set([6]))
      ranks[0]!.submit(submitted[0]!, 0)
      session.abort("enough")
      await new Promise<void>((resolve) => ranks[0]!.whenDrained(resolve))
      expect(session.fault).toMatchObject({ kind: "aborted", message: "enough" })
    })
  })
})

describeNative("scalars of a launch", () => {
  it("have a call here for every kernel that takes them", () => {
    const taking = Object.values(kernels).filter(({ scalars }) => scalars.length > 0)
    expect(taking.map(({ name }) => name).toSorted()).toEqual(launches.map(({ kernel }) => kernel).toSorted())
  })

  for (const one of launches) {
    const { kernel: name, written, attributes, scalars } = one
    for (const backend of ["cpu", "deferred"]) {
      it(`${name} on ${backend}: as the same values among the attributes, one after the other`, async () => {
        const kernel = kernels[name]
        const run = (given: boolean) =>
          withSession({ ranks: 1, backend }, async (session, rank) => {
            const tensors = tensorsOf(rank!, one)
            const ops: Array<Op> = []
            const results: Array<Tensor> = []
            const launchedWith = (more: Readonly<Record<string, number>>): Op => {
              const all = { ...attributes, ...more }
              const made = kernel.shapes(tensors, all)!
              const writes = made.map((shape, i) =>
                written[i] === undefined
                  ? (results[i] ??= tensorOn(rank!, shape, kernel.outputDtypes[i] ?? "float32"))
                  : tensors[written[i]]!
              )
              const op = launch("call", kernel, Lane.compute, tensors, writes, all)
              ops.push(op)
              return op
            }
            const open = given ? launchedWith({}) : undefined
            const told = [...scalars[0]!]
            for (const values of scalars) {
              for (const [i, value] of values.entries()) told[i] = value
              if (open === undefined) {
                rank!.submit(
                  launchedWith(Object.fromEntries(kernel.scalars.map((key, i) => [key, values[i]!]))),
                  0
                )
              } else {
                rank!.submit(open, 0, told)
                told.fill(1e9)
              }
            }
            const out: Array<TensorData> = []
            for (const tensor of [...tensors, ...results]) out.push(await readOf(rank!, tensor))
            expect(session.fault).toBeUndefined()
            if (open !== undefined) {
              const many = kernel.scalars.length + 1
              expect(() =>
                rank!.submit(
                  open,
                  0,
                  Array.from({ length: many }, () => 1)
                )
              ).toThrow(`${many} scalars; expected`)
              expect(() =>
                rank!.submit(
                  open,
                  0,
                  kernel.scalars.map(() => Number.NaN)
                )
              ).toThrow(/not finite/)
            }
            return out
          })
        expect(await run(true)).toEqual(await run(false))
      })
    }
  }
})
