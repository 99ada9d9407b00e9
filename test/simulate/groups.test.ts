// Collectives over groups that do the same at once, over members that put in different amounts, and through ports that two
// of them share: against closed forms and against every rank simulated by itself.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import { makeWorld, type Group, type World } from "../../core/world.ts"
import { close, failureOf, flatWorld, run, unlimited } from "./simulated.ts"

const evenWorld = (
  nodes: number,
  perNode: number,
  interBytesPerSecond: number,
  intraBytesPerSecond: number
): World =>
  makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
    intra: { bytesPerSecond: intraBytesPerSecond, latencySeconds: 1e-6 },
    inter: { bytesPerSecond: interBytesPerSecond, latencySeconds: 1e-5 },
    wan: undefined
  })

/** Ranks of each node, and the ranks of each position over the nodes. */
const groupsOf = (world: World, rank: number): { readonly node: Group; readonly across: Group } => {
  const nodes = [...Map.groupBy(world.all.ranks, (one) => world.nodeOf[one]!).values()]
  const across = nodes[0]!.map((_, position) => nodes.map((ranks) => ranks[position]!))
  const own = (groups: ReadonlyArray<ReadonlyArray<number>>, name: string): Group => {
    const index = groups.findIndex((ranks) => ranks.includes(rank))
    return { name: `${name} ${index}`, ranks: groups[index]!, alike: groups }
  }
  return { node: own(nodes, "node"), across: own(across, "across") }
}

/** Exchanges across nodes and gathers inside them, at the same time, some times over. */
const exchangeAndGather = (rows: number, times: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { node, across } = groupsOf(machine.world, machine.rank)
    const spec = (name: string, count: number) => ({ name, shape: [count, 16], dtype: "float32" as const })
    const sent = yield* machine.alloc(spec("sent", rows * across.ranks.length))
    const got = yield* machine.alloc(spec("got", rows * across.ranks.length))
    const part = yield* machine.alloc(spec("part", rows))
    const whole = yield* machine.alloc(spec("whole", rows * node.ranks.length))
    for (let i = 0; i < times; i++) {
      const exchange = { attributes: { ranks: across.ranks.length } }
      machine.submit(collective("exchange", kernels.all_to_all, Lane.inter, across, [sent], [got], exchange))
      const gather = { attributes: { ranks: node.ranks.length } }
      machine.submit(collective("gather", kernels.all_gather, Lane.intra, node, [part], [whole], gather))
      machine.submit(collective("sum", kernels.all_reduce, Lane.inter, across, [got], [got]))
    }
    yield* machine.drain
  })

describe("groups alike", () => {
  it("one for all: same times and bytes as each by itself, with shared ports or without", () => {
    const seen = { ports: 0, slowed: 0 }
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 50 }),
        fc.constantFrom(1e6, 1e8),
        fc.constantFrom(1e6, 1e8),
        fc.option(fc.constantFrom(0.4, 0.8, 1), { nil: undefined }),
        (nodes, perNode, rows, inter, intra, portShare) => {
          const world = evenWorld(nodes, perNode, inter, intra)
          const simulate = (symmetric: boolean, share: number | undefined) =>
            run({
              world,
              program: exchangeAndGather(rows, 2),
              collectives: { algorithm: "ring", portShare: share },
              symmetric
            })
          const once = simulate(true, portShare)
          const each = simulate(false, portShare)
          expect(once.ranks).toHaveLength(1)
          expect(each.ranks).toHaveLength(world.size)
          expect(close(once.makespanSeconds, each.makespanSeconds)).toBe(true)
          for (const tier of ["intra", "inter"]) {
            const bytes = [once, each].map(({ links }) =>
              links.reduce((sum, link) => sum + (link.tier === tier ? link.bytes : 0), 0)
            )
            expect(close(bytes[0]!, bytes[1]!)).toBe(true)
          }
          if (portShare !== undefined && nodes > 1 && perNode > 1) {
            seen.ports++
            const free = simulate(true, undefined).makespanSeconds
            if (portShare <= 0.5) expect(close(once.makespanSeconds, free)).toBe(true)
            else if (once.makespanSeconds > free * 1.001) seen.slowed++
          }
        }
      ),
      { numRuns: 100 }
    )
    expect(seen.ports).toBeGreaterThan(20)
    expect(seen.slowed).toBeGreaterThan(5)
  })

  it("refuse to stand for groups that hold other kinds of ranks", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const tensor = yield* machine.alloc({ name: "shard", shape: [8], dtype: "float32" })
      const groups = [[0, 1, 2], [3]]
      const ranks = groups.find((one) => one.includes(machine.rank))!
      const group = { name: `part ${ranks[0]}`, ranks, alike: groups }
      machine.submit(collective("sum", kernels.all_reduce, Lane.inter, group, [tensor], [tensor]))
      yield* machine.drain
    })
    expect(String(failureOf({ world: flatWorld(4), program }))).toMatch(/group "part 0" has 3 of the 4 ranks/)
  })
})

/** One uneven collective of rows of 4 bytes; `rows[i]` is what member i has, or sends to each. */
const uneven = (
  kernel: "all_to_all" | "all_gather" | "reduce_scatter",
  rows: ReadonlyArray<ReadonlyArray<number>>
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const group = machine.world.all
    const ranks = group.ranks.length
    const { rank } = machine
    const sum = (counts: ReadonlyArray<number>): number => counts.reduce((total, count) => total + count, 0)
    const sends = kernel === "all_to_all" ? rows[rank]! : rows[0]!
    const receives = rows.map((row) => row[rank]!)
    const total = sum(rows[0]!)
    const [input, output] = {
      all_to_all: [sum(sends), sum(receives)],
      all_gather: [sends[rank]!, total],
      reduce_scatter: [total, sends[rank]!]
    }[kernel] as [number, number]
    const inp = yield* machine.alloc({ name: "inp", shape: [input, 1], dtype: "float32" })
    const out = yield* machine.alloc({ name: "out", shape: [output, 1], dtype: "float32" })
    const attributes =
      kernel === "all_to_all"
        ? {
            ranks,
            sendCounts: sends.join(","),
            receiveCounts: receives.join(","),
            matrix: rows.map((row) => row.join(",")).join(";")
          }
        : { ranks, counts: sends.join(","), member: rank }
    machine.submit(collective(kernel, kernels[kernel], Lane.inter, group, [inp], [out], { attributes }))
    yield* machine.drain
  })

describe("uneven collectives", () => {
  const link = { bytesPerSecond: 1000, latencySeconds: 0.5 }
  const simulate = (program: Program<void>, ranks: number) =>
    run({ world: flatWorld(ranks, link), program, values: () => undefined }).makespanSeconds

  it("take as long as the busiest link: a hot receiver holds everyone up", () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 2, max: 4 })
          .chain((n) =>
            fc.array(fc.array(fc.nat(9), { minLength: n, maxLength: n }), { minLength: n, maxLength: n })
          ),
        (rows) => {
          const n = rows.length
          let busiest = 0
          for (let a = 0; a < n; a++) {
            let [sent, received] = [0, 0]
            for (let b = 0; b < n; b++)
              if (a !== b) [sent, received] = [sent + rows[a]![b]!, received + rows[b]![a]!]
            busiest = Math.max(busiest, sent, received)
          }
          const expected = busiest === 0 ? 0 : 0.5 + (busiest * 4) / 1000
          expect(close(simulate(uneven("all_to_all", rows), n), expected)).toBe(true)
          const counts = rows[0]!
          const total = counts.reduce((sum, count) => sum + count, 0)
          // Around the ring the hop that skips the smallest block carries most.
          const most = total - Math.min(...counts)
          const around = most === 0 ? 0 : (n - 1) * 0.5 + (most * 4) / 1000
          expect(close(simulate(uneven("all_gather", [counts]), n), around)).toBe(true)
          expect(close(simulate(uneven("reduce_scatter", [counts]), n), around)).toBe(true)
        }
      ),
      { numRuns: 60 }
    )
  })

  it("with equal counts are the even ones", () => {
    for (const kernel of ["all_to_all", "all_gather", "reduce_scatter"] as const) {
      const rows =
        kernel === "all_to_all"
          ? [
              [3, 3, 3],
              [3, 3, 3],
              [3, 3, 3]
            ]
          : [[3, 3, 3]]
      const even = Effect.gen(function* () {
        const machine = yield* Machine
        const [input, output] = { all_to_all: [9, 9], all_gather: [3, 9], reduce_scatter: [9, 3] }[kernel]
        const inp = yield* machine.alloc({ name: "inp", shape: [input!, 1], dtype: "float32" })
        const out = yield* machine.alloc({ name: "out", shape: [output!, 1], dtype: "float32" })
        const attributes = { attributes: { ranks: 3 } }
        machine.submit(
          collective(kernel, kernels[kernel], Lane.inter, machine.world.all, [inp], [out], attributes)
        )
        yield* machine.drain
      })
      expect(close(simulate(uneven(kernel, rows), 3), simulate(even, 3))).toBe(true)
    }
  })

  it("must be submitted with the same rows by all", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const rows =
        machine.rank === 0
          ? [
              [0, 1],
              [1, 0]
            ]
          : [
              [0, 1],
              [2, 0]
            ]
      yield* uneven("all_to_all", rows)
    })
    expect(String(failureOf({ world: flatWorld(2, unlimited), program, symmetric: false }))).toMatch(
      /collective 0: rank 1 submitted/
    )
  })
})
