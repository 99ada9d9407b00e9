// The deferred backend through its typed side: right programs give their values under any order, a program that leaves an edge
// out does not, and what a launch is told is what it was told then.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import { Dependencies, touchedBy } from "../../core/machine/dependencies.ts"
import { Lane, laneCount } from "../../core/machine/lane.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import type { NativeRank } from "../../exec/native.ts"
import { describeNative, tensorOn, withSession } from "./addon.ts"

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

/** Calls whose attributes may come with the launch, and two launches of each. */
const launches: ReadonlyArray<{
  readonly kernel: KernelName
  readonly shapes: ReadonlyArray<ReadonlyArray<number>>
  readonly written: ReadonlyArray<number>
  readonly attributes: Readonly<Record<string, number | boolean | string>>
  readonly scalars: ReadonlyArray<ReadonlyArray<number>>
  /** What is in inputs that cannot hold just anything, by place. */
  readonly held?: Readonly<Record<number, ReadonlyArray<number>>>
}> = [
  {
    kernel: "adamw",
    shapes: [[9], [9], [9], [9]],
    written: [0, 2, 3],
    attributes: {},
    scalars: [
      [0.1, 1],
      [0.05, 2],
      [0.01, 3]
    ]
  },
  {
    kernel: "sgd",
    shapes: [[9], [9], [9]],
    written: [0, 2],
    attributes: { momentum: 0.9, dampening: 0.5 },
    scalars: [
      [0.1, 1],
      [0.05, 2]
    ]
  },
  {
    kernel: "outer_nesterov",
    shapes: [[9], [9], [9]],
    written: [0, 1],
    attributes: {},
    scalars: [[0.7], [0.1]]
  },
  { kernel: "scale", shapes: [[9]], written: [0], attributes: {}, scalars: [[2], [0.5], [-1]] },
  { kernel: "lerp", shapes: [[9], [9]], written: [0], attributes: {}, scalars: [[0.25], [0.5]] },
  {
    kernel: "rope.forward",
    shapes: [[1, 3, 8]],
    written: [0],
    attributes: { headWidth: 4 },
    scalars: [[5], [17]]
  },
  {
    kernel: "rope.backward",
    shapes: [[1, 3, 8]],
    written: [0],
    attributes: { headWidth: 4 },
    scalars: [[5], [17]]
  },
  {
    kernel: "position_add.forward",
    shapes: [
      [1, 2, 3],
      [9, 3]
    ],
    written: [0],
    attributes: {},
    scalars: [[0], [7]]
  },
  {
    kernel: "position_add.backward_weight",
    shapes: [
      [1, 2, 3],
      [9, 3]
    ],
    written: [1],
    attributes: { positions: 9, accumulate: true },
    scalars: [[0], [7]]
  },
  {
    kernel: "random_normal",
    shapes: [],
    written: [],
    attributes: { rows: 3, width: 3 },
    scalars: [[7], [8]]
  },
  {
    kernel: "token_windows",
    shapes: [[50]],
    written: [],
    attributes: { batch: 2, time: 3, seed: 5 },
    scalars: [[0], [1]]
  },
  {
    kernel: "expert_ffn.forward",
    shapes: [
      [6, 2],
      [9, 2],
      [6, 6],
      [6, 2]
    ],
    written: [2, 3],
    attributes: {},
    scalars: [
      [0, 2],
      [2, 3]
    ]
  },
  {
    kernel: "kv.attention",
    shapes: [
      [2, 4],
      [1, 2],
      [2, 3, 2],
      [2, 3, 2]
    ],
    written: [],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2 },
    // what the rows, 0 and 1, come to: others are a fault
    scalars: [
      [3, 2],
      [3, 2]
    ]
  },
  {
    kernel: "kv.evict",
    shapes: [[2, 4], [1, 2], [1, 2], [2], [2, 5, 2], [2, 5, 2]],
    // Rows 4 and 3 of them, of which half of four stay: both have one too many, in the second launch as in the first.
    held: { 1: [3, 2], 2: [0, 0], 3: [4, 4] },
    written: [4, 5],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2, keep: 0.5 },
    scalars: [
      [2, 7, 4],
      [2, 7, 4]
    ]
  }
]

describeNative("scalars of a launch", () => {
  it("have a call here for every kernel that takes them", () => {
    const taking = Object.values(kernels).filter(({ scalars }) => scalars.length > 0)
    expect(taking.map(({ name }) => name).toSorted()).toEqual(launches.map(({ kernel }) => kernel).toSorted())
  })

  for (const { kernel: name, shapes, written, attributes, scalars, held } of launches) {
    for (const backend of ["cpu", "deferred"]) {
      it(`${name} on ${backend}: as the same values among the attributes, one after the other`, async () => {
        const kernel = kernels[name]
        const run = (given: boolean) =>
          withSession({ ranks: 1, backend }, async (session, rank) => {
            const tensors = shapes.map((shape, index) => {
              const dtype = kernel.inputDtypes[index] ?? "float32"
              const tensor = tensorOn(rank!, shape, dtype)
              const value = (i: number) => (dtype === "int32" ? i % 7 : Math.abs(Math.sin(i + index)))
              const values = held?.[index] ?? Array.from({ length: tensor.elements }, (_, i) => value(i))
              rank!.write(tensor, dtype === "int32" ? Int32Array.from(values) : Float32Array.from(values))
              return tensor
            })
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
