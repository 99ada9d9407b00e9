// The same scenario gives the same bits; and what happens at the same virtual time may happen in any order.

import * as fc from "fast-check"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { profiledModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { runCase, runScheduler } from "../../testing/check-scheduler.ts"
import { algorithmChoice } from "../../testing/algorithm.ts"
import { profile } from "../../testing/profile.ts"
import { scenario } from "../../testing/scenario.ts"
import { world } from "../../testing/world.ts"
import { flatWorld, plan, run } from "./simulated.ts"

const bytesOf = (timeline: Timeline): string =>
  [timeline.rank, timeline.op, timeline.lane, timeline.step, timeline.label, timeline.kernel]
    .concat([timeline.cause])
    .map((column) => Buffer.from(column.buffer).toString("base64"))
    .concat(
      [timeline.startSeconds, timeline.endSeconds, timeline.sizeBytes].map((column) =>
        Buffer.from(column.buffer).toString("base64")
      )
    )
    .concat(timeline.labels, timeline.kernels)
    .join("\n")

describe("a scenario run twice", () => {
  it("gives the same digest and the same timeline, byte for byte", () => {
    let jittered = 0
    const property = fc.property(scenario(), (generated) => {
      expect(runCase(generated).result).toEqual(runCase(generated).result)
      const [first, second] = [0, 1].map(() =>
        runScheduler(({ planned, model, steps }) => planned.program(model, steps), generated)
      )
      expect(first!.result.digest).toBe(second!.result.digest)
      expect(bytesOf(first!.execution.timeline) === bytesOf(second!.execution.timeline)).toBe(true)
      if (generated.scenario.jitter !== undefined) jittered++
    })
    fc.assert(property, { numRuns: 50 })
    expect(jittered).toBeGreaterThanOrEqual(5)
  })

  it("gives another digest with another seed, where something is random", () => {
    const property = fc.property(
      scenario({ maxFaults: 0, models: ["uniform"] }),
      fc.tuple(fc.nat({ max: 1000 }), fc.nat({ max: 1000 })),
      ({ scenario: input, profile: model }, [a, b]) => {
        fc.pre(a !== b)
        const digest = (seed: number) =>
          runCase({ scenario: { ...input, jitter: 0.1, seed }, profile: model }).result.digest
        expect(digest(a)).not.toBe(digest(b))
      }
    )
    fc.assert(property, { numRuns: 30 })
  })
})

describe("programs that can go on at the same virtual time", () => {
  const picks = fc.array(fc.nat({ max: 20 }), { minLength: 1, maxLength: 50 })
  const picker = (choices: ReadonlyArray<number>) => {
    let next = 0
    return () => choices[next++ % choices.length]!
  }

  it("may do so in any order: same times, bytes and edges", () => {
    let reordered = 0
    const property = fc.property(
      world({ maxSites: 2, maxNodesPerSite: 2 }),
      profile({ maxLayers: 4 }),
      algorithmChoice({ maxPeriod: 3 }),
      picks,
      (where, model, choose, choices) => {
        const { planned, costs } = plan(choose(model.layers.length), model, where)
        const once = (pick: ((runnable: number) => number) | undefined) => {
          let asked = 0
          const simulated = run({
            world: where,
            program: planned.program(profiledModel(model), 2 * planned.periodSteps),
            costs,
            symmetric: false,
            record: true,
            pick:
              pick === undefined
                ? undefined
                : (runnable) => {
                    const choice = pick(runnable)
                    if (choice % runnable !== 0) asked++
                    return choice
                  }
          })
          return { simulated, asked }
        }
        const usual = once(undefined).simulated
        const other = once(picker(choices))
        expect(other.simulated.ranks).toEqual(usual.ranks)
        expect(other.simulated.links).toEqual(usual.links)
        const byRank = ({ opLogs }: typeof usual) => opLogs.toSorted((a, b) => a.rank - b.rank)
        expect(byRank(other.simulated)).toEqual(byRank(usual))
        if (other.asked > 0) reordered++
      }
    )
    fc.assert(property, { numRuns: 100 })
    expect(reordered).toBeGreaterThanOrEqual(30)
  })

  it("read the same values whatever the order", () => {
    // Every rank adds what it read to what it sends next: a read that came too early or too late would spread.
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
      const reads: Array<number> = []
      for (let round = 0; round < 3; round++) {
        machine.submit(
          collective("sum", kernels.all_reduce, Lane.inter, machine.world.all, [x], [x], {
            attributes: { reduce: "sum" }
          })
        )
        const [value] = yield* machine.read(x)
        reads.push(value!)
        machine.submit(
          launch("scale", kernels.scale, Lane.compute, [x], [x], {
            factor: 1 + ((value! + machine.rank) % 3)
          })
        )
        yield* machine.endStep
      }
      return reads
    })
    const values = (choices: ReadonlyArray<number> | undefined) =>
      run({
        world: flatWorld(4),
        program,
        pick: choices === undefined ? undefined : picker(choices),
        values: (rank) => Float32Array.of(rank + 1)
      }).ranks.map(({ value }) => value)
    const usual = values(undefined)
    // By hand: 1+2+3+4 = 10 is read first, by all.
    expect(usual.map(([first]) => first)).toEqual([10, 10, 10, 10])
    const property = fc.property(picks, (choices) => {
      expect(values(choices)).toEqual(usual)
    })
    fc.assert(property)
  })
})
