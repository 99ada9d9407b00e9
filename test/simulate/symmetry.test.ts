// Ranks that are alike are simulated once and counted many times; here every rank is simulated as well.

import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Effect from "effect/Effect"
import { kernels } from "../../core/kernels/catalogue.ts"
import { profiledModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import { nodeGroup } from "../../core/world.ts"
import type { Fault } from "../../core/fault.ts"
import { Faults } from "../../sim/faults.ts"
import type { SimulationResult } from "../../sim/simulate.ts"
import { algorithmChoice } from "../../testing/algorithm.ts"
import { profile } from "../../testing/profile.ts"
import { world } from "../../testing/world.ts"
import { close, failureOf, flatWorld, plan, run } from "./simulated.ts"

const tierSums = <A>({ links }: SimulationResult<A>): Readonly<Record<string, number>> => {
  const sums: Record<string, number> = { intra: 0, inter: 0, wan: 0 }
  for (const { tier, bytes } of links) sums[tier]! += bytes
  return sums
}

const faults = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant("rank" as const),
      rank: fc.nat(),
      fromSeconds: fc.constantFrom(0, 0.01, 0.1),
      untilSeconds: fc.constantFrom(0.2, 1),
      factor: fc.constantFrom(0, 0.5)
    }),
    fc.record({
      kind: fc.constant("link" as const),
      tier: fc.constantFrom("intra" as const, "inter" as const, "wan" as const),
      owner: fc.option(fc.nat(), { nil: undefined }),
      fromSeconds: fc.constantFrom(0, 0.01, 0.1),
      untilSeconds: fc.constantFrom(0.2, 1),
      change: fc.constantFrom(
        { bytesPerSecond: 1e7 },
        { bytesPerSecond: 0 },
        { latencySeconds: 0.02 },
        { bytesPerSecond: 1e6, latencySeconds: 0 }
      )
    })
  ),
  { maxLength: 2 }
)

describe("interchangeable ranks", () => {
  it("counted once: same step times and same bytes as every rank simulated", () => {
    const seen = { shared: 0, classes: 0, uneven: 0, pairs: 0, faults: 0, tree: 0, hierarchical: 0 }
    const property = fc.property(
      world({ maxSites: 4 }),
      profile({ maxLayers: 4 }),
      algorithmChoice({ maxPeriod: 3 }),
      fc.constantFrom("ring" as const, "tree" as const, "hierarchical" as const),
      fc.constantFrom("fluid" as const, "alpha-beta" as const),
      faults,
      (where, model, choose, algorithm, network, wrong) => {
        const nodes = where.nodeOf.at(-1)! + 1
        const counts = { intra: where.size, inter: nodes, wan: where.sites.length }
        const inWorld = wrong.map((fault): Fault => {
          if (fault.kind === "rank") return { ...fault, rank: fault.rank % where.size }
          const { owner, tier } = fault
          return { ...fault, owner: owner === undefined ? undefined : owner % counts[tier] }
        })
        const { planned, costs } = plan(choose(model.layers.length), model, where, algorithm)
        const simulate = (symmetric: boolean) =>
          run({
            world: where,
            program: planned.program(profiledModel(model), 2 * planned.periodSteps),
            costs,
            network,
            collectives: { algorithm },
            faults: new Faults(inWorld),
            symmetric
          })
        const once = simulate(true)
        const each = simulate(false)
        expect(each.ranks).toHaveLength(where.size)
        expect(once.ranks.reduce((sum, { count }) => sum + count, 0)).toBe(where.size)
        expect(close(once.makespanSeconds, each.makespanSeconds)).toBe(true)
        // A rank that stands for others is the first of them, so it is found among all.
        for (const { rank, stepEndSeconds } of once.ranks) {
          const alone = each.ranks[rank]!.stepEndSeconds
          expect(alone).toHaveLength(stepEndSeconds.length)
          stepEndSeconds.forEach((seconds, step) => expect(close(seconds, alone[step]!)).toBe(true))
        }
        const last = (simulated: typeof once) =>
          Math.max(...simulated.ranks.map(({ stepEndSeconds }) => stepEndSeconds.at(-1)!))
        expect(close(last(once), last(each))).toBe(true)
        const [few, all] = [tierSums(once), tierSums(each)]
        for (const tier of ["intra", "inter", "wan"]) expect(close(few[tier]!, all[tier]!)).toBe(true)
        if (once.ranks.length < where.size) seen.shared++
        if (once.ranks.length < where.size && once.ranks.length > 1) seen.classes++
        if (new Set(where.sites.flatMap((site) => site.nodes)).size > 1) seen.uneven++
        if (where.links.wan !== undefined && "pairs" in where.links.wan && where.sites.length > 1)
          seen.pairs++
        if (inWorld.length > 0) seen.faults++
        if (algorithm === "tree" && once.ranks.length < where.size) seen.tree++
        if (algorithm === "hierarchical" && once.ranks.length < where.size) seen.hierarchical++
      }
    )
    fc.assert(property, { numRuns: 200 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(20)
  })

  it("refuse groups that cut through the ranks one of them stands for", () => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const tensor = yield* machine.alloc({ name: "shard", shape: [8], dtype: "float32" })
      const group = nodeGroup(machine.world, machine.rank)
      machine.submit(collective("gather", kernels.all_reduce, Lane.intra, group, [tensor], [tensor]))
      yield* machine.drain
    })
    const where = flatWorld(4)
    expect(String(failureOf({ world: where, program }))).toMatch(
      /group "node 0" has 1 of the 4 ranks that rank 0 stands for: simulate with symmetric: false/
    )
    expect(run({ world: where, program, symmetric: false }).ranks).toHaveLength(4)
  })
})
