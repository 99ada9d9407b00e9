// The agreement check can fail: machines that are broken on purpose, each in one way, are caught, and by the kind of
// disagreement that the way of breaking calls for. The same program agrees on the machine that is not broken.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import type { Agreement } from "../../core/agreement/agree.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch, type Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { runOnBoth } from "../../exec/cli/both-machines.ts"
import type { NativeRank, PrepareOptions } from "../../exec/native.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld } from "../simulate/simulated.ts"
import { intact, openBroken, type Breakage } from "./broken-machine.ts"
import { generatedProgram, programOf } from "./generated-programs.ts"

/** Ops whose label says so take their time, as loads do: what must wait for them has to wait. */
const slow = (_: number, op: Op): PrepareOptions | undefined =>
  op.label.startsWith("slow") ? { seconds: 0.05 } : undefined

const agreementOf = <A>(
  program: () => Program<A>,
  ranks: number,
  breakage: Breakage,
  prepare: (rank: number, op: Op) => PrepareOptions | undefined = slow
): Promise<Exit.Exit<Agreement, unknown>> =>
  Effect.runPromiseExit(
    Effect.map(
      runOnBoth({
        world: flatWorld(ranks),
        program,
        execution: {
          prepare,
          h2d: { bytesPerSecond: Infinity, latencySeconds: 0.05 },
          open: openBroken(breakage)
        }
      }),
      ({ agreement }) => agreement
    )
  )

const vector = (name: string, values: ReadonlyArray<number>) => ({
  name,
  shape: [values.length],
  dtype: "float32" as const,
  initial: () => Float32Array.from(values)
})

/** A load that compute waits for, a slot that is loaded anew while compute still reads it, averages, and a decision. */
const program: Program<void> = Effect.gen(function* () {
  const machine = yield* Machine
  const { rank, world } = machine
  const far: Array<Tensor> = []
  for (let i = 0; i < 4; i++)
    far.push(yield* machine.alloc({ ...vector(`far ${i}`, [i + 1, 10 * i + rank, i % 2]), place: "host" }))
  const slots = [
    yield* machine.alloc(vector("slot 0", [0, 0, 0])),
    yield* machine.alloc(vector("slot 1", [0, 0, 0]))
  ]
  const a = yield* machine.alloc(vector("a", [1, 2, 3]))
  const b = yield* machine.alloc(vector("b", [4, 5, 6]))
  const used = yield* machine.alloc(vector("used", [0.5, 0.25, 0]))
  const load = (label: string, from: number, to: number) =>
    machine.submit(launch(label, kernels.h2d, Lane.h2d, [far[from]!], [slots[to]!]))
  const compute = (label: string, reads: ReadonlyArray<Tensor>, to: Tensor, factor?: number) =>
    machine.submit(
      factor === undefined
        ? launch(label, kernels.add, Lane.compute, reads, [to])
        : launch(label, kernels.scale, Lane.compute, reads, [to], { factor })
    )
  load("load 1", 1, 0)
  compute("use slot 0", [slots[0]!, a], a)
  compute("slow use slot 0", [slots[0]!, b], b)
  load("load 2", 2, 0)
  compute("use slot 0 again", [slots[0]!, a], a)
  const average = (label: string, tensor: Tensor) =>
    machine.submit(
      collective(label, kernels.all_reduce, Lane.inter, world.all, [tensor], [tensor], {
        attributes: { reduce: "avg" }
      })
    )
  average("average a", a)
  average("average b", b)
  compute("slow count", [used], used, -2)
  // Whichever slot was used less makes room.
  const uses = yield* machine.read(used)
  const victim = uses[0]! < uses[1]! ? 0 : 1
  load("load 3", 3, victim)
  compute("use what was loaded", [slots[victim]!, a], b)
})

/** The op with this label, once it is submitted. */
const changing =
  (
    label: string,
    change: (rank: NativeRank, op: Op, edges: number, submit: NativeRank["submit"]) => number
  ): Breakage =>
  (rank) => {
    const submit = rank.submit.bind(rank)
    rank.submit = (op, edges) => (op.label === label ? change(rank, op, edges, submit) : submit(op, edges))
  }

const breakages: ReadonlyArray<{
  readonly name: string
  readonly breakage: Breakage
  readonly caught: Partial<Agreement>
  readonly message: RegExp
}> = [
  {
    name: "an edge dropped: an op starts before what it reads is written",
    breakage: changing("use slot 0", (_, op, __, submit) => submit(op, 0)),
    caught: { decisions: true },
    message: /tensor .* "a"|law edgesObeyed/
  },
  {
    name: "a slot reused too soon: it is loaded anew while an op still reads it",
    breakage: changing("load 2", (_, op, __, submit) => submit(op, 0)),
    caught: { decisions: true, order: false },
    message: /law edgesObeyed.*"load 2"|tensor/
  },
  {
    name: "a stale tensor: an op reads another buffer than the one it names",
    breakage: changing("use slot 0 again", (rank, op, edges, submit) => {
      const stale = { ...op, reads: [op.reads[1]!, op.reads[1]!] }
      rank.prepare(stale)
      return submit(stale, edges)
    }),
    caught: { decisions: true, values: false, order: true },
    message: /tensor/
  },
  {
    name: "collectives swapped on one rank",
    breakage: (rank, index) => {
      if (index !== 1) return
      const submit = rank.submit.bind(rank)
      let held: { readonly op: Op; readonly edges: number } | undefined
      rank.submit = (op, edges) => {
        if (op.label === "average a") {
          held = { op, edges }
          return -1
        }
        if (op.label !== "average b" || held === undefined) return submit(op, edges)
        submit(op, edges)
        return submit(held.op, held.edges)
      }
    },
    caught: { decisions: true, values: false },
    message: /tensor/
  },
  {
    name: "an early read: the program goes on with what was there before",
    breakage: (rank) => {
      rank.whenEnded = (_, __, then) => then()
      const read = rank.read.bind(rank)
      rank.read = (tensor) => {
        try {
          return read(tensor)
        } catch {
          // The native layer refuses to read what is being written; this machine does not.
          return Float32Array.of(0.5, 0.25, 0)
        }
      }
      rank.whenRead = (tensor, then) => then(rank.read(tensor))
    },
    caught: { decisions: false },
    message: /load 3|call/
  },
  {
    name: "a wrong eviction: the wrong slot makes room",
    breakage: (rank) => {
      const whenRead = rank.whenRead.bind(rank)
      rank.whenRead = (tensor, then) =>
        whenRead(tensor, (values) =>
          then(tensor.name === "used" && values[0] === -1 ? Float32Array.of(1, 0, 0) : values)
        )
    },
    caught: { decisions: false },
    message: /load 3/
  }
]

/** An average over int8, which what follows it overwrites at once, and one of what that made. */
const narrow: Program<void> = Effect.gen(function* () {
  const machine = yield* Machine
  const { rank, world } = machine
  const values = [127, rank === 0 ? 40.4999 : 20, -3, 77 - rank, 5, 0.25, -9 + rank, 1]
  const x = yield* machine.alloc(vector("x", values))
  const more = yield* machine.alloc(vector("more", [1, 200, 1, 2, 3, 4, 5, 6]))
  const y = yield* machine.alloc(
    vector(
      "y",
      values.map(() => 0)
    )
  )
  const average = (label: string, from: Tensor) =>
    machine.submit(
      collective(label, kernels.all_reduce, Lane.inter, world.all, [from], [y], {
        attributes: { reduce: "avg", wire: "int8" }
      })
    )
  average("first", x)
  machine.submit(launch("add", kernels.add, Lane.compute, [y, more], [y]))
  average("second", y)
  machine.submit(launch("double", kernels.scale, Lane.compute, [y], [y], { factor: 2 }))
  yield* machine.drain
})

/** Both ranks' first average with other attributes, or of other tensors. */
const averaging = (change: (op: Op, index: number) => Partial<Op>): Breakage => {
  return (rank, index) =>
    changing("first", (_, op, edges, submit) => submit({ ...op, ...change(op, index) }, edges))(rank, index)
}

/** What x holds at first. */
const startingFrom =
  (change: (values: TensorData) => TensorData): Breakage =>
  (rank, index) => {
    const write = rank.write.bind(rank)
    rank.write = (tensor, values) =>
      write(tensor, tensor.name === "x" && index === 0 ? change(values) : values)
  }

const narrowBreakages: ReadonlyArray<readonly [what: string, breakage: Breakage]> = [
  ["another wire", averaging(({ attributes }) => ({ attributes: { ...attributes, wire: "float8" } }))],
  ["a sum for an average", averaging(({ attributes }) => ({ attributes: { ...attributes, reduce: "sum" } }))],
  [
    "a contribution that is another tensor's",
    averaging(({ reads, writes }, index) => (index === 1 ? { reads: writes } : { reads }))
  ],
  ["one value off by two steps", startingFrom((values) => values.map((x, i) => (i === 4 ? x + 2 : x)))],
  ["one value off by one", startingFrom((values) => values.map((x, i) => (i === 4 ? x + 1 : x)))],
  ["a scale that is off", startingFrom((values) => values.map((x, i) => (i === 0 ? 1.02 * x : x)))]
]

describeNative("a narrow wire", () => {
  it("that rounds one value to another side is told from one that is broken, and moves nothing else", async () => {
    const whole = await agreementOf(() => narrow, 2, intact)
    expect(Exit.isSuccess(whole) && whole.value).toMatchObject({
      firstDisagreement: undefined,
      narrowWires: { elements: 32, turned: 0 }
    })
    // 40.4999 lies so near the middle that float32 may round it up: the sum's scale moves with it, were it not put right.
    const nudged = startingFrom((values) => values.map((x, i) => (i === 1 ? 40.5001 : x)))
    const turned = await agreementOf(() => narrow, 2, nudged)
    expect(Exit.isSuccess(turned) && turned.value).toMatchObject({
      firstDisagreement: undefined,
      narrowWires: { elements: 32, turned: 2 }
    })
  })

  for (const [what, breakage] of narrowBreakages) {
    it(`is caught with ${what}`, async () => {
      const exit = await agreementOf(() => narrow, 2, breakage)
      if (!Exit.isSuccess(exit)) throw new Error(`the run itself failed: ${String(exit.cause)}`)
      expect(exit.value).toMatchObject({ decisions: true, values: false, order: true })
      expect(exit.value.firstDisagreement?.message).toMatch(
        /"y" \(float32\), over a wire of int8 \(op 0 "first"\)/u
      )
    })
  }
})

/** A choice by scores and what comes of it. Next to the largest lies one that a machine may take for it, or not, as `second` says. */
const choosing = (second: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const scores = yield* machine.alloc(vector("scores", [0, 0, 0, 0]))
    const others = yield* machine.alloc(vector("others", [0, 0, 0, 0]))
    const base = yield* machine.alloc(vector("base", [1, 2, second - 1, 0.5]))
    const more = yield* machine.alloc(vector("more", [-1, 1, 1, 0.5]))
    const last = yield* machine.alloc(vector("last", [-1, -1, 1, 0.5]))
    const next = yield* machine.alloc({ name: "next", shape: [], dtype: "int32" })
    const row = yield* machine.alloc(vector("row", [0, 0, 0]))
    const table = yield* machine.alloc({
      name: "table",
      shape: [4, 3],
      dtype: "float32",
      initial: () => Float32Array.from({ length: 12 }, (_, i) => i)
    })
    const compute = (label: string, kernel: Op["kernel"], reads: Array<Tensor>, to: Tensor) =>
      machine.submit(launch(label, kernel, Lane.compute, reads, [to]))
    compute("others", kernels.add, [base, last], others)
    compute("scores", kernels.add, [base, more], scores)
    compute("choose", kernels.argmax, [scores], next)
    compute("look up", kernels["embedding.forward"], [next, table], row)
    yield* machine.read(next)
    yield* machine.drain
  })

/** Chooses by other scores, of which the second is the largest. */
const choosingSecond: Breakage = (rank) => {
  let others: Tensor | undefined
  const submit = rank.submit.bind(rank)
  rank.submit = (op, edges) => {
    if (op.label === "others") others = op.writes[0]
    if (op.label !== "choose") return submit(op, edges)
    const misled = { ...op, reads: [others!] }
    rank.prepare(misled)
    return submit(misled, edges)
  }
}

describeNative("a choice by scores", () => {
  const chosen = async (second: number, breakage: Breakage): Promise<Agreement> => {
    const exit = await agreementOf(() => choosing(second), 1, breakage)
    if (!Exit.isSuccess(exit)) throw new Error(`the run itself failed: ${String(exit.cause)}`)
    return exit.value
  }

  it("that takes another as good, to some steps of the grid, is counted and goes on", async () => {
    expect(await chosen(2.9999, intact)).toMatchObject({
      firstDisagreement: undefined,
      ties: { choices: 1, turned: 0 }
    })
    expect(await chosen(2.9999, choosingSecond)).toMatchObject({
      firstDisagreement: undefined,
      values: true,
      ties: { choices: 1, turned: 1 }
    })
  })

  it("is caught where it clearly takes the second best", async () => {
    // As far apart as two scores that are each a thousandth off, and a little.
    for (const second of [2.993, 2.9, 2]) {
      const agreement = await chosen(second, choosingSecond)
      expect(agreement, String(second)).toMatchObject({ decisions: true, values: false, order: true })
      expect(agreement.firstDisagreement?.message).toMatch(
        /"next" \(int32\), after op 2 "choose": simulated element 0 is 1; executed 2, which no scores choose/u
      )
      expect((await chosen(second, intact)).firstDisagreement).toBeUndefined()
    }
  })
})

describeNative("a machine that is broken on purpose", () => {
  it("is told from the same machine when it is not", async () => {
    const exit = await agreementOf(() => program, 2, intact)
    expect(Exit.isSuccess(exit) && exit.value.firstDisagreement).toBeUndefined()
  })

  for (const { name, breakage, caught, message } of breakages) {
    it(`is caught: ${name}`, async () => {
      const exit = await agreementOf(() => program, 2, breakage)
      if (!Exit.isSuccess(exit)) throw new Error(`the run itself failed: ${String(exit.cause)}`)
      expect(exit.value.firstDisagreement).toBeDefined()
      expect(exit.value).toMatchObject(caught)
      expect(exit.value.firstDisagreement!.message).toMatch(message)
    })
  }

  it("is caught on generated programs, too, when it drops every edge", async () => {
    let dropped = 0
    let caught = 0
    const everyEdge: Breakage = (rank) => {
      const submit = rank.submit.bind(rank)
      rank.submit = (op, edges) => {
        dropped += edges
        return submit(op, 0)
      }
    }
    // Ops of even number dawdle, so that what ought to wait for them is early.
    const dawdling = (_: number, op: Op): PrepareOptions | undefined =>
      Number.parseInt(op.label, 10) % 2 === 0 ? { seconds: 0.003 } : undefined
    const samples = fc.sample(generatedProgram(25), { numRuns: 25, seed: 7 })
    let withEdges = 0
    for (const generated of samples) {
      const before = dropped
      const exit = await agreementOf(() => programOf(generated), generated.ranks, everyEdge, dawdling)
      if (dropped === before) continue
      withEdges++
      if (!Exit.isSuccess(exit) || exit.value.firstDisagreement !== undefined) caught++
    }
    expect(withEdges).toBeGreaterThan(15)
    expect(caught).toBeGreaterThan(withEdges / 2)
  })
})
