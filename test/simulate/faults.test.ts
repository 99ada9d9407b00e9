// What goes wrong on purpose, against closed forms: slow ranks, ranks that are away, links that change or drop.

import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import { acrossNodesGroup, makeWorld, nodeGroup, type World } from "../../core/world.ts"
import type { Fault } from "../../core/fault.ts"
import { Faults } from "../../sim/faults.ts"
import { close, flatWorld, run, unlimited } from "./simulated.ts"

/** One kernel of `computeSeconds`, then an all-reduce of `bytes`. */
const computeThenReduce = (bytes: number) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const tensor = yield* machine.alloc({ name: "x", shape: [bytes / 4], dtype: "float32" })
    machine.submit(launch("compute", kernels.copy, Lane.compute, [tensor], [tensor]))
    machine.submit(
      collective("all-reduce", kernels.all_reduce, Lane.inter, machine.world.all, [tensor], [tensor])
    )
    yield* machine.endStep
  })

const makespan = (
  world: World,
  computeSeconds: number,
  bytes: number,
  faults: ReadonlyArray<Fault>,
  network: "fluid" | "alpha-beta" = "fluid"
): number =>
  run({
    world,
    program: computeThenReduce(bytes),
    costs: { seconds: () => computeSeconds, estimates: [] },
    faults: new Faults(faults),
    network
  }).makespanSeconds

const networks = fc.constantFrom("fluid" as const, "alpha-beta" as const)
const seconds = (max: number) => fc.integer({ min: 0, max: max * 16 }).map((n) => n / 16)

/** When `amount` is done that progresses at `rateAt(t)`, which changes at `times` only; from `start` on. */
const finished = (
  start: number,
  amount: number,
  times: ReadonlyArray<number>,
  rateAt: (time: number) => number
): number => {
  let now = start
  let left = amount
  for (const next of [...times.filter((time) => time > start).toSorted((a, b) => a - b), Infinity]) {
    const rate = rateAt(now)
    if (left === 0 || left <= rate * (next - now)) return left === 0 ? now : now + left / rate
    left -= rate * (next - now)
    now = next
  }
  return now
}

describe("slow and absent ranks", () => {
  it("all wait for the slowest; where faults overlap, their factors multiply", () => {
    const seen = { slowed: 0, outage: 0, overlapping: 0 }
    const fault = fc.record({
      rank: fc.nat({ max: 2 }),
      fromSeconds: seconds(4),
      lasts: seconds(6),
      factor: fc.constantFrom(0, 0.25, 0.5, 2)
    })
    const property = fc.property(fc.array(fault, { maxLength: 3 }), seconds(8), (given, computeSeconds) => {
      const faults = given.map(({ lasts, ...one }): Fault & { readonly kind: "rank" } => ({
        ...one,
        kind: "rank",
        untilSeconds: one.fromSeconds + lasts
      }))
      const world = flatWorld(3, { bytesPerSecond: 1000, latencySeconds: 0 })
      const ends = [0, 1, 2].map((rank) => {
        const own = faults.filter((one) => one.rank === rank)
        const times = own.flatMap((one) => [one.fromSeconds, one.untilSeconds])
        return finished(0, computeSeconds, times, (time) =>
          own
            .filter((one) => one.fromSeconds <= time && time < one.untilSeconds)
            .reduce((product, one) => product * one.factor, 1)
        )
      })
      const expected = Math.max(...ends) + (4 / 3) * (1200 / 1000)
      expect(close(makespan(world, computeSeconds, 1200, faults), expected)).toBe(true)
      if (Math.max(...ends) > computeSeconds) seen.slowed++
      if (faults.some((one) => one.factor === 0 && one.untilSeconds > one.fromSeconds)) seen.outage++
      if (
        faults.some((a, i) =>
          faults.some(
            (b, j) =>
              i < j && a.rank === b.rank && a.fromSeconds < b.untilSeconds && b.fromSeconds < a.untilSeconds
          )
        )
      )
        seen.overlapping++
    })
    fc.assert(property, { numRuns: 300 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(15)
  })
})

describe("links", () => {
  it("change their bandwidth under way, and drop for a while", () => {
    const seen = { underWay: 0, down: 0, before: 0, after: 0 }
    const property = fc.property(
      fc.integer({ min: 2, max: 4 }),
      fc.option(fc.nat(), { nil: undefined }),
      seconds(6),
      seconds(6),
      fc.constantFrom(0, 100, 500, 4000),
      seconds(2),
      networks,
      (ranks, node, from, lasts, bytesPerSecond, computeSeconds, network) => {
        const world = flatWorld(ranks, { bytesPerSecond: 1000, latencySeconds: 0 })
        const fault: Fault = {
          kind: "link",
          tier: "inter",
          owner: node === undefined ? undefined : node % ranks,
          fromSeconds: from,
          untilSeconds: from + lasts,
          change: { bytesPerSecond }
        }
        const bytes = 2400
        const flowing = ((2 * (ranks - 1)) / ranks) * bytes
        const expected = finished(computeSeconds, flowing, [from, from + lasts], (time) => {
          const changed = from <= time && time < from + lasts
          // A ring is as fast as its slowest link: one faster link among slow ones helps nobody.
          return changed
            ? fault.owner === undefined
              ? bytesPerSecond
              : Math.min(1000, bytesPerSecond)
            : 1000
        })
        expect(close(makespan(world, computeSeconds, bytes, [fault], network), expected)).toBe(true)
        if (lasts > 0 && from > computeSeconds && from < expected) seen.underWay++
        if (lasts > 0 && bytesPerSecond === 0) seen.down++
        if (from + lasts <= computeSeconds) seen.before++
        if (from >= expected) seen.after++
      }
    )
    fc.assert(property, { numRuns: 300 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(15)
  })

  it("change their latency for collectives that start from then on", () => {
    const change = (from: number, until: number): Fault => ({
      kind: "link",
      tier: "inter",
      owner: undefined,
      fromSeconds: from,
      untilSeconds: until,
      change: { latencySeconds: 0.5 }
    })
    const world = flatWorld(3, { bytesPerSecond: 1000, latencySeconds: 0.125 })
    // Ring over 3: 4 steps of latency; 4/3 of 1200 bytes at 1000 bytes/s. Compute first: 1 s.
    for (const network of ["fluid", "alpha-beta"] as const) {
      expect(makespan(world, 1, 1200, [], network)).toBeCloseTo(1 + 4 * 0.125 + 1.6, 12)
      expect(makespan(world, 1, 1200, [change(0.5, 1.25)], network)).toBeCloseTo(1 + 4 * 0.5 + 1.6, 12)
      expect(makespan(world, 1, 1200, [change(1.25, 2)], network)).toBeCloseTo(1 + 4 * 0.125 + 1.6, 12)
      expect(makespan(world, 1, 1200, [change(0, 0.75)], network)).toBeCloseTo(1 + 4 * 0.125 + 1.6, 12)
    }
  })

  it("that are slow for good take what links of that bandwidth do, where collectives were measured too", () => {
    const table = new CollectiveTable([
      { op: "all_reduce", ranks: 2, sizeBytes: 400, medianSeconds: 0.5, link: "unshaped" },
      { op: "all_reduce", ranks: 2, sizeBytes: 1200, medianSeconds: 1, link: "unshaped" }
    ])
    const taken = (statedBytesPerSecond: number, bytesPerSecond: number) =>
      run({
        world: flatWorld(2, { bytesPerSecond: statedBytesPerSecond, latencySeconds: 0.25 }),
        program: computeThenReduce(1200),
        costs: { seconds: () => 1, estimates: [] },
        collectives: { algorithm: "ring", table },
        faults: new Faults([
          {
            kind: "link",
            tier: "inter",
            owner: undefined,
            fromSeconds: 0,
            untilSeconds: Infinity,
            change: { bytesPerSecond }
          }
        ])
      }).makespanSeconds
    // Two latencies, and the longer of a second of software and 1200 B on the link: the software sends while it computes.
    for (const [bytesPerSecond, longer] of [
      [400, 3],
      [1200, 1],
      [1e6, 1]
    ] as const)
      for (const stated of [300, 1200, 1e6])
        expect(taken(stated, bytesPerSecond)).toBeCloseTo(1 + 2 * 0.25 + longer, 9)
  })

  it("of a site, joined pair by pair, are those of its own pairs", () => {
    const link = { bytesPerSecond: 1000, latencySeconds: 0 }
    const sites = ["a", "b", "c"].map((name) => ({ name, nodes: [1] }))
    const world = makeWorld(sites, {
      intra: unlimited,
      inter: unlimited,
      wan: {
        pairs: [
          { from: "a", to: "b", link },
          { from: "b", to: "c", link: { ...link, bytesPerSecond: 4000 } },
          { from: "c", to: "a", link: { ...link, bytesPerSecond: 4000 } }
        ]
      }
    })
    const slow = (owner: number): Fault => ({
      kind: "link",
      tier: "wan",
      owner,
      fromSeconds: 0,
      untilSeconds: Infinity,
      change: { bytesPerSecond: 2000 }
    })
    // The ring a-b-c-a goes at the rate of its slowest pair: a-b. A fault of c cannot raise it to 2000; one of a does.
    expect(makespan(world, 0, 1200, [])).toBeCloseTo(1.6, 12)
    expect(makespan(world, 0, 1200, [slow(2)])).toBeCloseTo(1.6, 12)
    expect(makespan(world, 0, 1200, [slow(0)])).toBeCloseTo(0.8, 12)
  })
})

describe("a fault that is over before anything is sent", () => {
  it("leaves every collective the latency of its own links", () => {
    // Three collectives one after the other: inside nodes, across them, over all. Each asks for its latency when it begins.
    const sites = [{ name: "site", nodes: [2, 2] }]
    const world = makeWorld(sites, {
      intra: { bytesPerSecond: 1e6, latencySeconds: 0.25 },
      inter: { bytesPerSecond: 1e6, latencySeconds: 4 },
      wan: undefined
    })
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({ name: "x", shape: [1000], dtype: "float32" })
      const { rank } = machine
      for (const group of [nodeGroup(world, rank), acrossNodesGroup(world, rank), world.all])
        machine.submit(collective(group.name, kernels.all_reduce, Lane.inter, group, [x], [x]))
      yield* machine.drain
    })
    const change = { latencySeconds: 0.5 }
    const over: Fault = { kind: "link", tier: "inter", owner: 1, fromSeconds: 0, untilSeconds: 1, change }
    const after = Effect.andThen(
      Effect.flatMap(Machine, ({ sleepUntil }) => sleepUntil(2)),
      program
    )
    for (const network of ["fluid", "alpha-beta"] as const) {
      const ended = (faults: ReadonlyArray<Fault>): number =>
        run({ world, program: after, network, symmetric: false, faults: new Faults(faults) }).makespanSeconds
      expect(ended([over])).toBeCloseTo(ended([]), 9)
      expect(ended([])).toBeGreaterThan(2 + 4 * 4)
    }
  })
})
