// Collectives that begin while a kernel of their rank runs: closed forms of when they end, stated and measured by message; and
// without either nothing changes.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Fault } from "../../core/fault.ts"
import type { CollectiveOptions } from "../../core/wire/legs.ts"
import { explain, stepWindow } from "../../sim/explain/explain.ts"
import { Faults } from "../../sim/faults.ts"
import { printExplanation } from "../../sim/explain/print.ts"
import { flatWorld, run } from "./simulated.ts"

const costsOf = (seconds: Readonly<Record<string, number>>): CostModel => ({
  seconds: ({ label }) => seconds[label] ?? 0,
  estimates: []
})

/**
 * Two ranks compute from `from` on, in two kernels that follow each other at once, for `compute` seconds in all; an all-reduce of `message`
 * seconds at 1 MB/s begins at `begins`, and what uses it takes `after`. When that has ended.
 */
const ended = (
  {
    from,
    compute,
    begins,
    message,
    after = 0
  }: Record<"from" | "compute" | "begins" | "message", number> & {
    readonly after?: number
  },
  collectives: Omit<CollectiveOptions, "algorithm">,
  bytesPerSecond = 1e6,
  faults: ReadonlyArray<Fault> = []
) =>
  run({
    faults: new Faults(faults),
    world: flatWorld(2, { bytesPerSecond, latencySeconds: 0 }),
    costs: costsOf({ from, half: compute / 2, begins, after }),
    collectives: { algorithm: "ring", ...collectives },
    record: true,
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const own = yield* machine.alloc({ name: "own", shape: [1], dtype: "float32" })
      const elements = Math.round((message * 1e6) / 4)
      const sent = yield* machine.alloc({ name: "sent", shape: [elements], dtype: "float32" })
      machine.submit(launch("begins", kernels.barrier, Lane.h2d, [sent], []))
      machine.submit(launch("from", kernels.barrier, Lane.d2h, [own], []))
      machine.submit(launch("half", kernels.scale, Lane.compute, [own], [own], { factor: 1 }))
      machine.submit(launch("half", kernels.scale, Lane.compute, [own], [own], { factor: 1 }))
      machine.submit(
        collective("all-reduce", kernels.all_reduce, Lane.inter, machine.world.all, [sent], [sent])
      )
      machine.submit(launch("after", kernels.barrier, Lane.compute, [sent], []))
      yield* machine.endStep
      return
    })
  })

describe("a collective that begins while a kernel runs", () => {
  it("waits as long as is said, or until its rank computes nothing; and no other waits", () => {
    const seen = { idle: 0, whole: 0, cut: 0 }
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 8 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: 16 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 6 }),
        (from, compute, begins, message, waitSeconds) => {
          const { ranks } = ended({ from, compute, begins, message, after: 1 }, { waitSeconds })
          const runs = begins >= from && begins < from + compute
          const wait = runs ? Math.min(waitSeconds, from + compute - begins) : 0
          const done = Math.max(begins + wait + message, from + compute) + 1
          expect(ranks[0]!.stepEndSeconds[0]).toBeCloseTo(done, 6)
          seen[!runs ? "idle" : wait < waitSeconds ? "cut" : "whole"]++
        }
      )
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(5)
  })

  it("waits as the message that lost least, then takes what links or the transport beside kernels take, whichever is longer", () => {
    const bytes = 4e6
    const row = { op: "all_reduce", ranks: 2, link: "unshaped" } as const
    const rows = [
      { ...row, sizeBytes: bytes / 2, medianSeconds: 2, besideSeconds: 3 },
      { ...row, sizeBytes: 2 * bytes, medianSeconds: 8, besideSeconds: 12 }
    ]
    const at = { from: 0, compute: 20, begins: 1, message: 4 }
    const endOf = (options: Omit<CollectiveOptions, "algorithm">, bytesPerSecond?: number): number => {
      const { timeline } = ended(at, options, bytesPerSecond)
      return timeline!.endSeconds[timeline!.op.indexOf(4)]!
    }
    const table = new CollectiveTable(rows)
    // A second of wait, and of the 3 s that the larger loses besides a third of the way.
    expect(endOf({ table })).toBeCloseTo(1 + 1 + (4 + 1), 6)
    // Links that take 4.5 s leave half a second of it, and slower ones nothing.
    expect(endOf({ table }, 1e6 / (4.5 / 4))).toBeCloseTo(1 + 1 + 5, 6)
    expect(endOf({ table }, 0.5e6)).toBeCloseTo(1 + 1 + 8, 6)
    // Links that are faster than what was measured change nothing.
    expect(endOf({ table }, 1e9)).toBeCloseTo(1 + 1 + 5, 6)
    const alone = rows.map(({ sizeBytes, medianSeconds }) => ({ ...row, sizeBytes, medianSeconds }))
    expect(endOf({ table: new CollectiveTable(alone) })).toBeCloseTo(1 + 4, 6)
    expect(endOf({ table: new CollectiveTable(rows), waitSeconds: 0 })).toBeCloseTo(1 + 4, 6)
    expect(endOf({ table: new CollectiveTable(rows), waitSeconds: 0.5 })).toBeCloseTo(1 + 0.5 + 4, 6)
    const digests = [{}, { waitSeconds: 0 }].map((options) => ended(at, options).digest)
    expect(digests[0]).toBe(digests[1])
  })

  it("waits by the links as they are when it begins, however fast they were stated", () => {
    const row = { op: "all_reduce", ranks: 2, link: "unshaped" } as const
    const table = new CollectiveTable([
      { ...row, sizeBytes: 2e6, medianSeconds: 2, besideSeconds: 3 },
      { ...row, sizeBytes: 8e6, medianSeconds: 8, besideSeconds: 12 }
    ])
    const endOf = (stated: number, now: number): number => {
      const fault: Fault = {
        kind: "link",
        tier: "inter",
        owner: undefined,
        fromSeconds: 0.5,
        untilSeconds: Infinity,
        change: { bytesPerSecond: now }
      }
      const { timeline } = ended({ from: 0, compute: 20, begins: 1, message: 4 }, { table }, stated, [fault])
      return timeline!.endSeconds[timeline!.op.indexOf(4)]!
    }
    // As above: a second of wait, then 5 s of the transport beside kernels, or what links take that are slower.
    for (const stated of [1e6, 0.5e6, 1e9]) {
      expect(endOf(stated, 1e6), `${stated}`).toBeCloseTo(1 + 1 + 5, 6)
      expect(endOf(stated, 0.5e6), `${stated}`).toBeCloseTo(1 + 1 + 8, 6)
      expect(endOf(stated, 1e6 / (4.5 / 4)), `${stated}`).toBeCloseTo(1 + 1 + 5, 6)
    }
  })

  it("loses the same wait and the same rate whatever its size", () => {
    const row = { op: "all_reduce", ranks: 2, link: "unshaped" } as const
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 400 }),
        (wait, more, megabytes) => {
          const rows = [1, 10, 100].map((size) => ({
            ...row,
            sizeBytes: 1e6 * size,
            medianSeconds: 1 + size,
            besideSeconds: 1 + wait + (1 + more) * size
          }))
          const { waitSeconds, moreSeconds } = new CollectiveTable(rows).besideKernels(
            "all_reduce",
            1e6 * megabytes
          )!
          // What the smallest loses to the rate cannot be told from the wait.
          expect(waitSeconds).toBeCloseTo(wait + more, 9)
          const known = (size: number): number => more * size - more
          const between = (from: number, to: number): number =>
            known(from) + ((megabytes - from) / (to - from)) * (known(to) - known(from))
          expect(moreSeconds).toBeCloseTo(
            megabytes <= 1
              ? 0
              : megabytes <= 10
                ? between(1, 10)
                : megabytes <= 100
                  ? between(10, 100)
                  : known(100) * (megabytes / 100),
            6
          )
        }
      )
    )
    const faster = [1, 2].map((size) => ({ ...row, sizeBytes: size, medianSeconds: size, besideSeconds: 1 }))
    expect(new CollectiveTable(faster).besideKernels("all_reduce", 4)).toEqual({
      waitSeconds: 0,
      moreSeconds: 0
    })
  })

  it("is told to have waited for multiprocessors", () => {
    const { timeline, opLogs } = ended(
      { from: 0, compute: 4, begins: 1, message: 6, after: 2 },
      { waitSeconds: 2 }
    )
    const explained = explain(timeline!, stepWindow(timeline!, 0, 0)!, { opLogs })
    expect(explained.criticalPath.byKind.placement).toBeCloseTo(2, 9)
    expect(explained.collectives[0]!.delay).toEqual({ kind: "placement", seconds: 2 })
    expect(explained.seconds).toBeCloseTo(11, 9)
    expect(printExplanation(explained)).toMatch(/its own\s+waited 2\.00 s for\s+multiprocessors/u)
  })
})
