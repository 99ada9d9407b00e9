// What may be on its way bounds a message: by hand, beside SimGrid, and through faults of latency.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { Fault } from "../../core/fault.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch, type Op } from "../../core/machine/op.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import type { CollectiveOptions } from "../../core/wire/legs.ts"
import { Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import { asStated, distinct } from "../../core/wire/symmetry.ts"
import { makeWorld, type Links, type LinkSpec, type World } from "../../core/world.ts"
import { emulatedLinks } from "../../exec/cli/links.ts"
import { Faults } from "../../sim/faults.ts"
import { run, unlimited } from "./simulated.ts"

const mebi = 2 ** 20
const wan: LinkSpec = { bytesPerSecond: 1.25e9, latencySeconds: 0.01, windowBytes: 4 * mebi }

/** Two sites, each of so many nodes of one rank. */
const sitesOf = (nodes: number, links: Partial<Pick<Links, "inter" | "wan">> = {}): World =>
  makeWorld(
    ["A", "B"].map((name) => ({ name, nodes: Array<number>(nodes).fill(1) })),
    { intra: unlimited, inter: unlimited, wan, ...links }
  )

const tensorOf = (bytes: number) =>
  Effect.flatMap(Machine, (machine) => machine.alloc({ name: "x", shape: [bytes], dtype: "int8" }))

/** Of a second's work and one all-reduce of so many bytes among all behind it; `told` hears of each rank's op. */
const reduced = (
  world: World,
  bytes: number,
  collectives: CollectiveAlgorithm | CollectiveOptions = "ring",
  faults: ConstructorParameters<typeof Faults>[0] = [],
  told: (op: Op) => void = () => {}
): number =>
  run({
    world,
    program: Effect.gen(function* () {
      const { submit } = yield* Machine
      const own = yield* tensorOf(bytes)
      submit(launch("work", kernels.copy, Lane.compute, [own], [own]))
      const op = collective("all-reduce", kernels.all_reduce, Lane.inter, world.all, [own], [own])
      told(op)
      submit(op)
    }),
    costs: { seconds: () => 1, estimates: [] },
    collectives: typeof collectives === "string" ? { algorithm: collectives } : collectives,
    faults: new Faults(faults)
  }).makespanSeconds - 1

/** Of a message: a window at the link's rate, each next one a round trip after it began. */
const sent = (
  bytes: number,
  { bytesPerSecond, windowBytes = Infinity }: LinkSpec,
  roundTrip: number
): number => {
  let seconds = 0
  let left = bytes
  for (; left > windowBytes; left -= windowBytes) seconds += Math.max(roundTrip, windowBytes / bytesPerSecond)
  return seconds + left / bytesPerSecond
}

describe("a window", () => {
  it("holds messages back that are larger, one after another around a ring", () => {
    // Two ranks: two steps of a half each.
    const two = (bytes: number) => 2 * (0.01 + sent(bytes / 2, wan, 0.02))
    for (const bytes of [0, 1e6, 8 * mebi, 8 * mebi + 2, 100e6])
      expect(reduced(sitesOf(1), bytes), `${bytes} bytes`).toBeCloseTo(two(bytes), 9)
    // What fits goes as if there were none, and a little more waits a round trip.
    expect(two(8 * mebi)).toBeCloseTo(0.02 + (8 * mebi) / 1.25e9, 9)
    expect(two(8 * mebi + 2) - two(8 * mebi)).toBeCloseTo(2 * (0.02 - (4 * mebi) / 1.25e9), 6)
    // Four ranks: six steps of a fourth, of which those between sites count.
    expect(reduced(sitesOf(2), 100e6)).toBeCloseTo(3 * 0.01 + 6 * sent(25e6, wan, 0.02), 9)
    // A link that lets no more than a window through in a round trip is as it was.
    const slow = { ...wan, bytesPerSecond: 1e8 }
    expect(reduced(sitesOf(1, { wan: slow }), 100e6)).toBeCloseTo(0.02 + 1, 9)
    // One of the nodes' counts over the whole way, theirs and the sites' delays together.
    const near = { bytesPerSecond: Infinity, latencySeconds: 0.005, windowBytes: mebi }
    expect(reduced(sitesOf(1, { inter: near }), 100e6)).toBeCloseTo(
      2 * (0.015 + sent(50e6, { ...wan, windowBytes: mebi }, 0.03)),
      9
    )
    // Without a round trip nothing waits.
    const here = { bytesPerSecond: 1e9, latencySeconds: 0, windowBytes: 1000 }
    expect(reduced(sitesOf(1, { wan: here }), 100e6)).toBeCloseTo(0.1, 9)
  })

  it("is of each connection: a direct exchange has as many as pairs of ranks", () => {
    // Two by two: each sends a fourth to each of two ranks elsewhere, twice: four at once over the link.
    const fourth = sent(25e6, { ...wan, bytesPerSecond: 1.25e9 / 4 }, 0.02)
    expect(reduced(sitesOf(2), 100e6, "direct")).toBeCloseTo(2 * (0.01 + fourth), 9)
    // Eight by eight are more connections than the link has room for.
    const shares = (8 * 8 * 100e6) / 16
    expect(reduced(sitesOf(8), 100e6, "direct")).toBeCloseTo(2 * (0.01 + shares / 1.25e9), 9)
  })

  it("comes to what SimGrid has of it: eight flows of 64 to 512 MB at once over one link", () => {
    const world = sitesOf(8)
    const { ranks } = run({
      world,
      symmetric: false,
      program: Effect.gen(function* () {
        const { rank, submit, drain, endStep } = yield* Machine
        const pair = rank % 8
        const own = yield* tensorOf(64e6 * (pair + 1))
        const source = rank < 8
        const group = { name: `pair ${pair}`, ranks: [pair, pair + 8] }
        submit(
          collective("send", kernels.send_recv, Lane.inter, group, source ? [own] : [], source ? [] : [own], {
            attributes: { source }
          })
        )
        yield* drain
        yield* endStep
      })
    })
    // SimGrid 3.32, CM02, network/TCP-gamma:4194304, no crosstraffic. All bytes of a flow have the rate there, of a window each round trip;
    // here the first window of a message has the link's.
    const golden = [0.4196, 0.778, 1.0852, 1.390375781, 1.695551563, 2.000727344, 2.305903125, 2.611078906]
    golden.forEach((seconds, pair) => {
      const ended = ranks[pair]!.stepEndSeconds[0]!
      expect(ended).toBeLessThan(seconds + 1e-9)
      expect(ended).toBeGreaterThan(seconds - 0.02)
    })
  })

  it("goes with the latency that a fault has given the link", () => {
    const fault = {
      kind: "link" as const,
      tier: "wan" as const,
      owner: undefined,
      fromSeconds: 0.5,
      untilSeconds: Infinity,
      change: { latencySeconds: 0.04 }
    }
    const expected = 2 * (0.04 + sent(50e6, wan, 0.08))
    expect(reduced(sitesOf(1), 100e6, "ring", [fault])).toBeCloseTo(expected, 9)
  })

  it("goes with the bandwidth that a fault has given the link, beside software that is quicker than it", () => {
    const fault: Fault = {
      kind: "link",
      tier: "wan",
      owner: undefined,
      fromSeconds: 0.5,
      untilSeconds: Infinity,
      change: { bytesPerSecond: 2.5e9 }
    }
    const row = { op: "all_reduce", ranks: 2, medianSeconds: 0.2, link: "unshaped" } as const
    const table = new CollectiveTable([1, 2 ** 30].map((sizeBytes) => ({ ...row, sizeBytes })))
    const changed = 2 * (0.01 + sent(50e6, { ...wan, bytesPerSecond: 2.5e9 }, 0.02))
    const stated = 2 * (0.01 + sent(50e6, wan, 0.02))
    for (const options of [{}, { table }]) {
      expect(reduced(sitesOf(1), 100e6, { algorithm: "ring", ...options }, [fault])).toBeCloseTo(changed, 9)
      expect(reduced(sitesOf(1), 100e6, { algorithm: "ring", ...options })).toBeCloseTo(stated, 9)
    }
  })

  it("counts a round trip by both ways of a pair of sites, and of unlike amounts the largest", () => {
    const pair = (from: string, to: string, latencySeconds: number) => ({
      from,
      to,
      link: { ...wan, latencySeconds }
    })
    const world = sitesOf(1, { wan: { pairs: [pair("A", "B", 0.01), pair("B", "A", 0.03)] } })
    // A step each way, of which the slower counts, and the way there and back of each.
    expect(reduced(world, 100e6)).toBeCloseTo(0.04 + 2 * sent(50e6, wan, 0.04), 9)
    const four = sitesOf(2)
    // Rows that rank 0 sends rank 2 and rank 1 rank 3 over links that are alike, and rank 2 rank 0 over the way back.
    const rows = [
      [0, 0, 3, 0],
      [0, 0, 0, 1],
      [1, 0, 0, 0],
      [0, 0, 0, 0]
    ]
    for (const network of [new Network(four, asStated(four)), new Network(four, distinct(four))]) {
      const { held } = network.unevenPhase("all_to_all", [0, 1, 2, 3], rows)
      expect(held(4 * mebi, 1e9)).toBeCloseTo(2 * (0.02 - (4 * mebi) / 3e9), 9)
    }
  })

  it("is reckoned with by planners and kept by emulated links, alone on them", () => {
    const world = sitesOf(2)
    const network = new Network(world, distinct(world))
    const seconds = aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring" })(100e6)
    const ops: Array<Op> = []
    expect(seconds).toBeCloseTo(
      reduced(world, 100e6, "ring", [], (op) => ops.push(op)),
      9
    )
    const { prepare, linkBytesPerSecond } = emulatedLinks(world, "ring")
    const { latencySeconds, loads } = prepare!(0, ops[0]!)!.transport!
    const busiest = Math.max(...loads.map(({ link, bytes }) => bytes / linkBytesPerSecond![link]!))
    expect(latencySeconds + busiest).toBeCloseTo(seconds, 9)
    // By its links alone it would take a fourth of that.
    expect(busiest).toBeLessThan(seconds / 4)
  })
})

describe("a handshake", () => {
  const seconds = (bytes: number, ranks: number, handshake: boolean): number => {
    const far = { bytesPerSecond: 1e9, latencySeconds: 0.01 }
    const world = makeWorld([{ name: "site", nodes: Array<number>(ranks).fill(1) }], {
      intra: unlimited,
      inter: far,
      wan: undefined
    })
    const network = new Network(world, distinct(world))
    return aloneSeconds(network, "all_reduce", world.all, { algorithm: "direct", handshake })(bytes)
  }

  it("is of direct collectives alone, and as long as the link's delay is when it begins", () => {
    const later: Fault = {
      kind: "link",
      tier: "wan",
      owner: undefined,
      fromSeconds: 0.5,
      untilSeconds: Infinity,
      change: { latencySeconds: 0.04 }
    }
    const took = (options: CollectiveOptions) => reduced(sitesOf(1), 1e6, options, [later])
    const more = took({ algorithm: "direct", handshake: true }) - took({ algorithm: "direct" })
    expect(more).toBeCloseTo(0.04, 9)
    for (const algorithm of ["ring", "tree", "hierarchical"] as const)
      expect(took({ algorithm, handshake: true })).toBe(took({ algorithm }))
  })

  it("is a way more of a direct collective, however many messages it has one after another", () => {
    for (const [bytes, ranks] of [
      [1000, 2],
      [1e7, 2],
      [1000, 4],
      [1e7, 4]
    ] as const)
      expect(seconds(bytes, ranks, true) - seconds(bytes, ranks, false), `${bytes} ${ranks}`).toBeCloseTo(
        0.01,
        12
      )
  })
})
