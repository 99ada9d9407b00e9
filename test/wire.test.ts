// What a collective puts on the wire, as simulator, emulated links and planners share it: measured tables with every algorithm,
// the longer of software and wire, who sends, and what lies outside the table.
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../core/cost/collective-table.ts"
import { kernels } from "../core/kernels/catalogue.ts"
import { Lane } from "../core/machine/lane.ts"
import { Machine } from "../core/machine/machine.ts"
import { collective } from "../core/machine/op.ts"
import { checkLaws } from "../core/laws/laws.ts"
import { aloneSeconds } from "../core/wire/alone.ts"
import { oneShotBytes, type CollectiveOptions } from "../core/wire/legs.ts"
import { collectiveAlgorithms, Network } from "../core/wire/network.ts"
import { distinct, interchangeable } from "../core/wire/symmetry.ts"
import { makeWorld, unlimited, type World } from "../core/world.ts"
import { readProfile } from "../traces/profile-file.ts"
import { close, execute, freeKernels, run } from "./simulate/simulated.ts"

const gigabit = 1e9 / 8

const profile = await Effect.runPromise(
  readProfile(new URL("../traces/profiles/nccl-h200-sockets.arrow", import.meta.url).pathname)
)
const table = new CollectiveTable(profile.collectives)

const nodes = (counts: ReadonlyArray<number>, inter = unlimited, intra = unlimited): World =>
  makeWorld([{ name: "here", nodes: counts }], { intra, inter, wan: undefined })

const alike = { rank: () => "", node: () => "", site: () => "" }

const closed = (world: World, kernel: string, options: CollectiveOptions): ((sizeBytes: number) => number) =>
  aloneSeconds(new Network(world, interchangeable(world, alike)), kernel, world.all, options)

type Kernel = "all_reduce" | "all_gather" | "reduce_scatter" | "all_to_all" | "broadcast"

/** One collective of so many float32 numbers, simulated. */
const simulated = (
  world: World,
  kernel: Kernel,
  elements: number,
  collectives: CollectiveOptions,
  root?: number
) =>
  run({
    world,
    costs: freeKernels,
    collectives,
    ...(root === undefined ? {} : { symmetric: false }),
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const ranks = world.size
      const out =
        { all_gather: elements * ranks, reduce_scatter: elements / ranks }[kernel as string] ?? elements
      const input = yield* machine.alloc({ name: "in", shape: [elements], dtype: "float32" })
      const output = yield* machine.alloc({ name: "out", shape: [out], dtype: "float32" })
      const attributes =
        kernel === "all_reduce"
          ? { reduce: "sum" }
          : kernel === "broadcast"
            ? { root: root ?? 0 }
            : kernel === "reduce_scatter"
              ? { reduce: "sum", ranks }
              : { ranks }
      machine.submit(
        collective("it", kernels[kernel], Lane.inter, world.all, [input], [output], { attributes })
      )
      yield* machine.drain
    })
  })

describe("a measured collective", () => {
  it("takes what was measured where no link is in the way", () => {
    let compared = 0
    for (const { op, ranks, sizeBytes, medianSeconds, link } of profile.collectives) {
      if (link !== "unshaped") continue
      const input = op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes
      const world = nodes(Array.from({ length: ranks }, () => 1))
      expect(closed(world, op, { algorithm: "ring", table })(input)).toBeCloseTo(medianSeconds, 12)
      compared++
    }
    expect(compared).toBe(48)
  })

  it("takes the longer of its measured time and its time on the wire", () => {
    const world = nodes([1, 1, 1, 1], { bytesPerSecond: 10 * gigabit, latencySeconds: 0 })
    const seconds = closed(world, "all_reduce", { algorithm: "ring", table })
    for (const [sizeBytes, unshaped] of [
      [4096, 0.00019182],
      [1048576, 0.00103979],
      [67108864, 0.042097478]
    ] as const) {
      const wire = (1.5 * sizeBytes) / (10 * gigabit)
      expect(seconds(sizeBytes)).toBeCloseTo(Math.max(unshaped, wire), 12)
    }
    // bench/measured: 1,263.6 and 1,270.0 us of 1 MiB on 4 ranks at 10 Gbit/s, on two machines; the sum would be 1,450.
    expect(Math.abs(seconds(1048576) / 1266.8e-6 - 1)).toBeLessThan(0.01)
  })

  it("is met by measurements over shaped links that nothing was fitted to", () => {
    interface Measured {
      readonly ranks: number
      readonly link_rate: string
      readonly all_reduce: ReadonlyArray<{ readonly bytes: number; readonly median_seconds: number }>
    }
    const { runs } = JSON.parse(
      readFileSync(new URL("../bench/measured/ddp-gpt2-h200-heldout.json", import.meta.url), "utf8")
    ) as { readonly runs: ReadonlyArray<Measured> }
    // The software, as the same machine had it on links that were no limit.
    const unshaped = new CollectiveTable(
      runs
        .filter(({ link_rate }) => link_rate === "unshaped")
        .flatMap(({ ranks, all_reduce }) =>
          all_reduce.map(({ bytes, median_seconds }) => ({
            op: "all_reduce" as const,
            ranks,
            sizeBytes: bytes,
            medianSeconds: median_seconds,
            link: "unshaped"
          }))
        )
    )
    const errors = runs
      .filter(({ ranks, link_rate }) => ranks === 4 && link_rate === "10gbit")
      .flatMap(({ ranks, all_reduce }) => {
        const world = nodes(
          Array.from({ length: ranks }, () => 1),
          { bytesPerSecond: 10 * gigabit, latencySeconds: 0 }
        )
        const seconds = closed(world, "all_reduce", { algorithm: "ring", table: unshaped })
        return all_reduce.map(({ bytes, median_seconds }) => Math.abs(seconds(bytes) / median_seconds - 1))
      })
    expect(errors).toHaveLength(7)
    expect(errors.reduce((sum, error) => sum + error, 0) / errors.length).toBeLessThan(0.02)
    expect(Math.max(...errors)).toBeLessThan(0.05)
  })

  it("costs a simulation what planners reckon with, whatever the algorithm and links", () => {
    let limited = 0
    let measured = 0
    fc.assert(
      fc.property(
        fc.constantFrom<Kernel>("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"),
        fc.constantFrom(...collectiveAlgorithms),
        fc.constantFrom([1, 1], [2, 2], [1, 1, 1, 1], [4], [3, 1], [2, 1, 1]),
        fc.integer({ min: 1, max: 200_000 }),
        fc.constantFrom(Infinity, 0.1, 1, 10, 100),
        fc.constantFrom(0, 1e-5, 1e-2),
        fc.boolean(),
        (kernel, algorithm, perNode, quarters, gigabits, latencySeconds, withTable) => {
          const link = { bytesPerSecond: gigabits * gigabit, latencySeconds }
          const world = nodes(perNode, link, link)
          const options = { algorithm, ...(withTable ? { table } : {}) }
          const elements = 4 * quarters
          const alone = closed(world, kernel, options)(4 * elements)
          const { makespanSeconds } = simulated(world, kernel, elements, options)
          expect(Math.abs(makespanSeconds - alone)).toBeLessThanOrEqual(1e-9 * alone)
          // Measured software makes nothing faster, and links nothing faster than measured.
          const free = closed(world, kernel, { algorithm })(4 * elements)
          expect(alone).toBeGreaterThanOrEqual(free * (1 - 1e-12))
          const soft = closed(nodes(perNode), kernel, options)(4 * elements)
          expect(alone).toBeGreaterThanOrEqual(soft * (1 - 1e-12))
          if (alone > soft * 1.01) limited++
          if (withTable && alone > free * 1.01) measured++
        }
      )
    )
    expect(limited).toBeGreaterThan(10)
    expect(measured).toBeGreaterThan(10)
  })

  it("bounds each phase of a hierarchical all-reduce", () => {
    const world = nodes([2, 2], { bytesPerSecond: 100 * gigabit, latencySeconds: 0 })
    const seconds = closed(world, "all_reduce", { algorithm: "hierarchical", table })(2 ** 24)
    const of = (op: string, sizeBytes: number) => table.ceiling(op, 2, sizeBytes)!.seconds
    // Inside a node of two, then one half across two nodes, then inside again.
    expect(seconds).toBeCloseTo(
      of("reduce_scatter", 2 ** 24) + of("all_reduce", 2 ** 23) + of("all_gather", 2 ** 23),
      12
    )
    expect(seconds).toBeGreaterThan(5 * closed(world, "all_reduce", { algorithm: "hierarchical" })(2 ** 24))
  })

  it("says what the table does not have", () => {
    const world = nodes([1, 1, 1, 1])
    const told = (
      kernel: Kernel,
      elements: number,
      algorithm = "ring" as CollectiveOptions["algorithm"],
      from = table
    ) =>
      simulated(world, kernel, elements, { algorithm, table: from }).estimates.map(
        ({ source, detail }) => `${source}: ${detail}`
      )
    expect(told("all_reduce", 2 ** 20)).toEqual([])
    expect(told("all_reduce", 1500 * 2 ** 24)).toEqual([
      expect.stringMatching(/extrapolated: .*outside the table/u)
    ])
    // The smallest measured of 2 ranks lies below the smallest of 4, which says nothing against it.
    const [two, smallest] = [nodes([1, 1]), 2 * 1024]
    expect(simulated(two, "reduce_scatter", smallest, { algorithm: "ring", table }).estimates).toEqual([])
    expect(told("all_reduce", 16)).toEqual([expect.stringMatching(/outside the table/u)])
    expect(told("broadcast", 2 ** 20)).toEqual([expect.stringMatching(/broadcast not in the table/u)])
    const onlyReduce = new CollectiveTable(profile.collectives.filter(({ op }) => op === "all_reduce"))
    expect(told("all_reduce", 2 ** 20, "direct", onlyReduce)).toEqual([
      expect.stringMatching(
        /reduce_scatter of 4, all_gather of 4: reduce_scatter, all_gather not in the table/u
      )
    ])
    const unlike = simulated(nodes([3, 1]), "all_reduce", 2 ** 20, { algorithm: "hierarchical", table })
    expect(unlike.estimates.map(({ detail }) => detail)).toEqual([
      expect.stringMatching(
        /^reduce of 3, all_reduce of 2, broadcast of 3: reduce, broadcast not in the table/u
      )
    ])
    const eight = nodes([1, 1, 1, 1, 1, 1, 1, 1])
    expect(simulated(eight, "all_reduce", 2 ** 20, { algorithm: "ring", table }).estimates).toHaveLength(1)
  })
})

describe("rows of one rank", () => {
  const alone = (["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"] as const).flatMap(
    (op) =>
      [1024, 2 ** 20].map((sizeBytes) => ({ op, ranks: 1, sizeBytes, medianSeconds: 1e-5, link: "unshaped" }))
  )

  it("are of nobody else: a table is the same with them and without", () => {
    const more = new CollectiveTable([...alone, ...profile.collectives])
    expect(more.ops).toEqual(table.ops)
    for (const op of table.ops)
      for (const ranks of [2, 3, 4, 8])
        for (const bytes of [16, 2 ** 20, 2 ** 30])
          expect(more.ceiling(op, ranks, bytes)).toEqual(table.ceiling(op, ranks, bytes))
  })

  it("are no table by themselves", () => {
    const none = new CollectiveTable(alone)
    expect(none.ops).toEqual([])
    expect(none.ceiling("all_gather", 4, 2 ** 20)).toBeUndefined()
  })
})

describe("a table of what stays inside nodes", () => {
  const intra = { bytesPerSecond: 1e12, latencySeconds: 0 }
  const world = nodes([2, 2], { bytesPerSecond: 1e9, latencySeconds: 0 }, intra)
  const rows = (op: "reduce_scatter" | "all_reduce" | "all_gather", seconds: number) =>
    [1, 2 ** 30].map((bytes) => ({
      op,
      ranks: 2,
      sizeBytes: op === "reduce_scatter" ? bytes / 2 : bytes,
      medianSeconds: seconds,
      link: "unshaped"
    }))
  const every = (seconds: number) =>
    new CollectiveTable(
      (["reduce_scatter", "all_reduce", "all_gather"] as const).flatMap((op) => rows(op, seconds))
    )

  it("bounds phases inside a node, the other table those between nodes", () => {
    const [slow, quick] = [every(1), every(0.125)]
    const seconds = (options: Partial<CollectiveOptions>) =>
      closed(world, "all_reduce", { algorithm: "hierarchical", ...options })(4096)
    expect(seconds({ table: slow })).toBe(3)
    expect(seconds({ table: slow, inside: quick })).toBe(1.25)
    expect(seconds({ table: quick, inside: slow })).toBe(2.125)
    // Around a ring of all ranks every byte crosses between nodes, too; a message of any size takes 1 s, and so does one of more ranks.
    const ring = closed(world, "all_reduce", { algorithm: "ring", table: slow, inside: quick })(4096)
    expect(ring).toBe(1)
  })

  it("is the only one in a world of one node, and links alone bound what it does not have", () => {
    const one = nodes([2], unlimited, intra)
    const options = { algorithm: "direct", inside: every(0.25) } as const
    expect(closed(one, "all_gather", options)(4096)).toBe(0.25)
    expect(closed(world, "all_gather", options)(4096)).toBeCloseTo((4 * 4096) / 1e9, 12)
  })
})

describe("who sends", () => {
  const intra = { bytesPerSecond: 1e12, latencySeconds: 0 }
  const inter = { bytesPerSecond: 1e9, latencySeconds: 0 }
  const world = nodes([2, 2], inter, intra)
  const bytesOut = (root: number) => {
    const { links } = simulated(world, "broadcast", 1000, { algorithm: "ring" }, root)
    return links
      .filter(({ tier, name }) => tier === "inter" && name.includes("out"))
      .map(({ bytes }) => bytes)
  }

  it("of a broadcast is its root", () => {
    // Along the chain that begins at the root: from 0, only 1 to 2 crosses; from 1, 1 to 2 and 3 to 0.
    expect(bytesOut(0)).toEqual([4000, 0])
    expect(bytesOut(1)).toEqual([4000, 4000])
    expect(bytesOut(2)).toEqual([0, 4000])
    expect(bytesOut(3)).toEqual([4000, 4000])
  })

  it("of a message is its source, whichever member of the group that is", () => {
    const pair = nodes([1, 1], inter, intra)
    for (const source of [0, 1]) {
      const { links } = run({
        world: pair,
        costs: freeKernels,
        collectives: { algorithm: "ring" },
        symmetric: false,
        program: Effect.gen(function* () {
          const machine = yield* Machine
          const own = yield* machine.alloc({ name: "x", shape: [250], dtype: "float32" })
          const sends = machine.rank === source
          machine.submit(
            collective(
              "it",
              kernels.send_recv,
              Lane.inter,
              pair.all,
              sends ? [own] : [],
              sends ? [] : [own],
              {
                attributes: { source: sends }
              }
            )
          )
          yield* machine.drain
        })
      })
      const out = links.filter(({ name }) => name.startsWith("inter out")).map(({ bytes }) => bytes)
      expect(out).toEqual(source === 0 ? [1000, 0] : [0, 1000])
    }
  })

  // What native/transport/collective-plan.cc sends: shares of what is narrow and sums of what is not, or everything to everybody.
  it.each([
    [2, "float32", 2 * 0.5 * 4],
    [4, "float32", 2 * 0.75 * 4],
    [2, "bfloat16", 2],
    [4, "bfloat16", 0.75 * 2 + 0.75 * 4],
    [4, "float4", 3 * 0.5],
    [10, "float4", 0.9 * 0.5 + 0.9 * 4]
  ] as const)(
    "to everyone at once sends sums as wide as they are: %d ranks, %s",
    (ranks, wire, bytesEach) => {
      const elements = 4000
      const program = Effect.gen(function* () {
        const machine = yield* Machine
        const x = yield* machine.alloc({ name: "x", shape: [elements], dtype: "float32" })
        const { all } = machine.world
        machine.submit(
          collective("average", kernels.all_reduce, Lane.inter, all, [x], [x], {
            attributes: { reduce: "avg" },
            ...(wire === "float32" ? {} : { wire })
          })
        )
        yield* machine.drain
      })
      const world = nodes(
        Array.from({ length: ranks }, () => 1),
        { bytesPerSecond: 1e6, latencySeconds: 0 }
      )
      const { links, makespanSeconds } = run({
        world,
        costs: freeKernels,
        collectives: { algorithm: "direct" },
        program
      })
      const out = links.find(({ name }) => name.startsWith("inter out"))!
      expect(out.bytes / out.count).toBeCloseTo(bytesEach * elements, 6)
      expect(makespanSeconds).toBeCloseTo((bytesEach * elements) / 1e6, 9)
    }
  )

  it("to everyone at once counts every tensor of a message, whatever its place in it", () => {
    const seen = { mixed: 0, wired: 0, everything: 0, shares: 0 }
    const tensor = fc.record({
      elements: fc.integer({ min: 1, max: 400 }).map((n) => 8 * n),
      dtype: fc.constantFrom("float32" as const, "bfloat16" as const)
    })
    const property = fc.property(
      fc.integer({ min: 2, max: 6 }),
      fc.array(tensor, { minLength: 1, maxLength: 3 }),
      fc.constantFrom(undefined, "bfloat16" as const, "float4" as const),
      (ranks, specs, wire) => {
        const world = nodes(Array.from({ length: ranks }, () => 1))
        const { simulated: once, execution } = execute({
          world,
          collectives: { algorithm: "direct" },
          symmetric: false,
          program: Effect.gen(function* () {
            const machine = yield* Machine
            const tensors = yield* Effect.forEach(specs, ({ elements, dtype }, i) =>
              machine.alloc({ name: `x${i}`, shape: [elements], dtype })
            )
            const sent = wire === undefined ? {} : { wire }
            const { all } = machine.world
            const attributes = { reduce: "avg" }
            machine.submit(
              collective("average", kernels.all_reduce, Lane.inter, all, tensors, tensors, {
                attributes,
                ...sent
              })
            )
            yield* machine.drain
          })
        })
        // As `CollectivePlan::oneShot` of native/transport adds them up.
        let [sent, sums] = [0, 0]
        for (const { elements, dtype } of specs) {
          const bytes = { float32: 4, bfloat16: 2, float4: 0.5 }
          sent += elements * bytes[wire ?? dtype]
          sums += elements * bytes[dtype]
        }
        const everything = sent * ranks <= sent + sums
        const bytesEach = everything ? (ranks - 1) * sent : ((ranks - 1) / ranks) * (sent + sums)
        for (const { name, bytes } of once.links)
          if (name.startsWith("inter out")) expect(close(bytes, bytesEach)).toBe(true)
        expect(checkLaws(execution)).toBeUndefined()
        if (new Set(specs.map(({ dtype }) => dtype)).size > 1) seen.mixed++
        if (wire !== undefined) seen.wired++
        seen[everything ? "everything" : "shares"]++
      }
    )
    fc.assert(property)
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(5)
  })

  it("from one to everyone at once sends little more than everything once", () => {
    for (const ranks of [2, 4, 8]) {
      const world = nodes(
        Array.from({ length: ranks }, () => 1),
        { bytesPerSecond: 1e6, latencySeconds: 0 }
      )
      const { links, makespanSeconds } = simulated(world, "broadcast", 1000, { algorithm: "direct" }, 0)
      const sent = links.filter(({ name }) => name.startsWith("inter out")).map(({ bytes }) => bytes / 4000)
      expect(sent[0]).toBeCloseTo((2 * (ranks - 1)) / ranks, 9)
      for (const other of sent.slice(1)) expect(other).toBeCloseTo((ranks - 2) / ranks, 9)
      expect(makespanSeconds).toBeCloseTo((4000 * 2 * (ranks - 1)) / ranks / 1e6, 9)
    }
  })

  it("to everyone at once pays one latency each way", () => {
    const flat = nodes([1, 1, 1, 1], { bytesPerSecond: 1e9, latencySeconds: 1e-3 })
    const network = new Network(flat, distinct(flat))
    const direct = aloneSeconds(network, "all_reduce", flat.all, { algorithm: "direct" })(4e6)
    expect(direct).toBeCloseTo(2 * 1e-3 + (1.5 * 4e6) / 1e9, 12)
    // Of two, as many bytes by shares: above a limit these are what goes, one phase after the other.
    const two = nodes([1, 1], { bytesPerSecond: 1e9, latencySeconds: 1e-3 })
    const pair = new Network(two, distinct(two))
    const ofTwo = aloneSeconds(pair, "all_reduce", two.all, { algorithm: "direct" })
    expect(ofTwo(4e6)).toBeCloseTo(6e-3, 12)
    expect(ofTwo(oneShotBytes)).toBeCloseTo(1e-3 + oneShotBytes / 1e9, 12)
    expect(ofTwo(oneShotBytes + 4)).toBeCloseTo(2e-3 + (oneShotBytes + 4) / 1e9, 12)
    // Sums twice as wide as what three send are as many bytes as everything to everybody, too.
    const three = nodes([1, 1, 1], { bytesPerSecond: 1e9, latencySeconds: 1e-3 })
    const narrow = aloneSeconds(
      new Network(three, distinct(three)),
      "all_reduce",
      three.all,
      { algorithm: "direct" },
      2
    )
    expect(narrow(1e5)).toBeCloseTo(1e-3 + 2e5 / 1e9, 12)
    expect(narrow(3e6)).toBeCloseTo(2e-3 + 6e6 / 1e9, 12)
    const ring = aloneSeconds(network, "all_reduce", flat.all, { algorithm: "ring" })(4e6)
    expect(ring).toBeCloseTo(6 * 1e-3 + (1.5 * 4e6) / 1e9, 12)
    const gather = aloneSeconds(network, "all_gather", flat.all, { algorithm: "direct" })(1e6)
    expect(gather).toBeCloseTo(1e-3 + 3e6 / 1e9, 12)
  })

  it("is short up to as many bytes as for processes", () => {
    const source = readFileSync("native/transport/collective-plan.cc", "utf8")
    const [, one, shift] = /oneShotBytes = size_t\{(\d+)\} << (\d+);/u.exec(source)!
    expect(Number(one) * 2 ** Number(shift)).toBe(oneShotBytes)
  })
})
