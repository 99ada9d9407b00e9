// Rings whose software sends a chunk around at a time: held to a ring spelled out, half a chunk of a channel after another, and by hand.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { Network } from "../../core/wire/network.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { makeWorld, type LinkSpec } from "../../core/world.ts"
import { unlimited } from "./simulated.ts"

type Op = "all_reduce" | "all_gather" | "reduce_scatter"

const stepsOf = (op: Op, ranks: number): number => (op === "all_reduce" ? 2 : 1) * (ranks - 1)

interface Ring {
  readonly op: Op
  readonly ranks: number
  readonly link: LinkSpec
  readonly chunkBytes: number
  readonly chunks: number
}

const modelled = ({ op, ranks, link, chunkBytes, chunks }: Ring, together = chunkBytes): number => {
  const world = makeWorld([{ name: "site", nodes: Array<number>(ranks).fill(1) }], {
    intra: unlimited,
    inter: link,
    wan: undefined
  })
  // What a rank puts in: of an all-gather what goes on at each step, of the others as much for each rank.
  const bytes = chunks * chunkBytes * (op === "all_gather" ? 1 : ranks)
  const network = new Network(world, distinct(world))
  return aloneSeconds(network, op, world.all, { algorithm: "ring", chunkBytes: together })(bytes)
}

/** A half of a channel's chunk that is to be sent. */
interface Half {
  readonly step: number
  readonly half: number
  left: number
}

/**
 * All ranks do alike, so one is followed: what it sends arrives at the next as the one before's arrives here. Two channels share its
 * link; each hands on a half when it has come, and begins its next chunk when the last half of the last step has.
 */
const spelledOut = ({ op, ranks, link, chunkBytes, chunks }: Ring): number => {
  const steps = stepsOf(op, ranks)
  const queues: ReadonlyArray<Array<Half>> = [[], []]
  const begun = [0, 0]
  const coming: Array<{
    readonly at: number
    readonly channel: number
    readonly step: number
    readonly half: number
  }> = []
  const send = (channel: number, step: number, half: number): void =>
    void queues[channel]!.push({ step, half, left: chunkBytes / 4 })
  const begin = (channel: number): void => {
    begun[channel]!++
    send(channel, 0, 0)
    send(channel, 0, 1)
  }
  begin(0)
  begin(1)
  let now = 0
  while (coming.length > 0 || queues.some((queue) => queue.length > 0)) {
    const sending = queues.filter((queue) => queue.length > 0)
    const rate = link.bytesPerSecond / sending.length
    const sent = Math.min(...sending.map(([first]) => first!.left / rate))
    const next = Math.min(...coming.map(({ at }) => at - now))
    const passed = Math.min(sent, next)
    now += passed
    for (const [first] of sending) first!.left -= rate * passed
    for (const [channel, queue] of queues.entries())
      if (queue.length > 0 && queue[0]!.left <= 1e-9 * chunkBytes) {
        const { step, half } = queue.shift()!
        coming.push({ at: now + link.latencySeconds, channel, step, half })
      }
    for (const arrived of coming.filter(({ at }) => at <= now + 1e-12)) {
      coming.splice(coming.indexOf(arrived), 1)
      const { channel, step, half } = arrived
      if (step < steps - 1) send(channel, step + 1, half)
      else if (half === 1 && begun[channel]! < chunks) begin(channel)
    }
  }
  return now
}

describe("a ring that sends a chunk around at a time", () => {
  it("takes as long for each more as one that is spelled out, and in all no less, and no more than what the last has twice", () => {
    const reached = { aroundLater: 0, linkLater: 0 }
    const ring = fc.record({
      op: fc.constantFrom<Op>("all_reduce", "all_gather", "reduce_scatter"),
      ranks: fc.integer({ min: 2, max: 5 }),
      link: fc.record({
        bytesPerSecond: fc.constant(1e9),
        latencySeconds: fc.double({ min: 1e-4, max: 0.02, noNaN: true })
      }),
      chunkBytes: fc.integer({ min: 1, max: 20 }).map((mega) => 1e6 * mega),
      chunks: fc.integer({ min: 1, max: 6 })
    })
    fc.assert(
      fc.property(ring, (one) => {
        const more = { ...one, chunks: one.chunks + 1 }
        const each = spelledOut(more) - spelledOut(one)
        expect(modelled(more) - modelled(one)).toBeCloseTo(each, 9)
        const covered = ((stepsOf(one.op, one.ranks) - 1) / 2) * (one.chunkBytes / 1e9)
        const over = modelled(one) - spelledOut(one)
        expect(over).toBeGreaterThan(-1e-9)
        expect(over).toBeLessThan(covered + 1e-9)
        const later = stepsOf(one.op, one.ranks) * one.link.latencySeconds - covered > one.link.latencySeconds
        reached[later ? "aroundLater" : "linkLater"]++
      }),
      { numRuns: 200 }
    )
    expect(Math.min(...Object.values(reached))).toBeGreaterThan(20)
  })

  it("is as if there were no chunks where all of it is one, or no link takes time", () => {
    const far = { bytesPerSecond: 1e9, latencySeconds: 0.01 }
    const ring: Ring = { op: "all_reduce", ranks: 4, link: far, chunkBytes: 1e6, chunks: 8 }
    expect(modelled(ring, 8e6)).toBe(modelled(ring, Infinity))
    expect(modelled(ring)).toBeGreaterThan(modelled(ring, Infinity))
    const near = { ...ring, link: { ...far, latencySeconds: 0 } }
    expect(modelled(near)).toBe(modelled(near, Infinity))
  })

  it("waits for the farthest hop: two sites of two nodes, by hand", () => {
    const world = makeWorld(
      ["A", "B"].map((name) => ({ name, nodes: [1, 1] })),
      { intra: unlimited, inter: unlimited, wan: { bytesPerSecond: 1e9, latencySeconds: 0.01 } }
    )
    const network = new Network(world, distinct(world))
    const seconds = (chunkBytes: number): number =>
      aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring", chunkBytes })(16e6)
    // Six steps of 4 MB, of whose hops every other one is between sites: 30 ms of delays.
    expect(seconds(Infinity)).toBeCloseTo(0.03 + 0.024, 9)
    // Four chunks of 1 MB: around is 30 ms later, of which 2.5 are covered.
    expect(seconds(1e6)).toBeCloseTo(0.03 + 0.024 + 3 * (0.03 - 0.0025), 9)
    // Two of 20 MB in 160: links are at work all the time, but for the last hop's delay.
    expect(
      aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring", chunkBytes: 20e6 })(160e6)
    ).toBeCloseTo(0.03 + 0.24 + 0.01, 9)
  })

  it("is of rings alone: what goes from everybody to everybody, and along a tree or a chain, goes as it is", () => {
    const far = { bytesPerSecond: 1e9, latencySeconds: 0.01 }
    const world = makeWorld([{ name: "site", nodes: [1, 1, 1, 1] }], {
      intra: unlimited,
      inter: far,
      wan: undefined
    })
    const network = new Network(world, distinct(world))
    for (const [op, algorithm] of [
      ["all_reduce", "direct"],
      ["all_reduce", "tree"],
      ["all_to_all", "ring"],
      ["broadcast", "ring"]
    ] as const) {
      const seconds = (chunkBytes: number) =>
        aloneSeconds(network, op, world.all, { algorithm, chunkBytes })(64e6)
      expect(seconds(1e6), `${op} ${algorithm}`).toBe(seconds(Infinity))
    }
  })
})
