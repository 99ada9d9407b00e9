// Bytes of a model in parts on every tier of links, for each algorithm across divisions that are nodes, sites or the world, of
// nodes and sites of several sizes: held to what a ring around each group puts on each of its edges.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { dividedProfile, planShards } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { profiledModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import { makeWorld, type World } from "../../core/world.ts"
import { plan, run, unlimited } from "../simulate/simulated.ts"
import { accumulations } from "./rule-instances.ts"
import { choices, profileOf } from "./shard-choices.ts"
import { divided } from "./in-parts.ts"

interface Tiers {
  intra: number
  inter: number
  wan: number
}

/** A ring around `ranks`, `bytes` over each of its edges: at both ends of the link that the edge crosses. */
const ring = (world: World, ranks: ReadonlyArray<number>, bytes: number, onto: Tiers): void => {
  if (ranks.length === 1) return
  ranks.forEach((from, index) => {
    const to = ranks[(index + 1) % ranks.length]!
    if (world.nodeOf[from] === world.nodeOf[to]) onto.intra += 2 * bytes
    else onto.inter += 2 * bytes
    if (world.siteOf[from] !== world.siteOf[to]) onto.wan += 2 * bytes
  })
}

const period = 6
const everyFew = ["local-sgd", "dreamddp", "diloco", "streaming-diloco"] as const
const algorithms = ["s-sgd", "ddp", ...everyFew] as const

/** Nodes of equally many ranks, or of several sizes where these are not what holds the model. */
const worlds = fc
  .record({
    within: fc.constantFrom("node" as const, "site" as const, "world" as const),
    ranksPerNode: fc.integer({ min: 1, max: 3 }),
    nodes: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 })
  })
  .map(({ within, ranksPerNode, nodes }) => ({
    within,
    sites: nodes.map((count) => {
      // Sites of one size may have nodes of several; those of the world may be of any.
      if (within === "node") return Array.from({ length: count }, () => ranksPerNode)
      if (within === "world") return Array.from({ length: count }, (_, i) => (i % ranksPerNode) + 1)
      return Array.from({ length: nodes[0]! }, () => ranksPerNode)
    })
  }))

describe("links of a model in parts", () => {
  it("carry what rings of gathers, sums and averages put on their edges, for each algorithm", () => {
    const seen = { uneven: 0, gathered: 0, crossed: 0, names: new Set<string>(), within: new Set<string>() }
    fc.assert(
      fc.property(
        fc.record({
          choices,
          world: worlds,
          name: fc.constantFrom(...algorithms),
          dtype: fc.constantFrom(undefined, "bfloat16" as const),
          reduceDtype: fc.constantFrom("float32" as const, "bfloat16" as const),
          blocks: fc.integer({ min: 0, max: 2 }),
          periods: fc.integer({ min: 1, max: 2 }),
          accumulation: accumulations
        }),
        ({ choices, world: { within, sites }, name, dtype, reduceDtype, blocks, periods, accumulation }) => {
          const links = { intra: unlimited, inter: unlimited, wan: unlimited }
          const world = makeWorld(
            sites.map((nodes, site) => ({ name: `site ${site}`, nodes })),
            links
          )
          const division = divided(world, within)
          const profile = profileOf(blocks, 24)
          const names = profile.layers.map((layer) => layer.name)
          const shards = planShards(names, division, { ...choices, parameterDtype: dtype, reduceDtype })
          const rare = everyFew.some((one) => one === name)
          const more =
            name === "streaming-diloco"
              ? { layersPerFragment: 1, delaySteps: 0, wire: "float32" as const }
              : name === "diloco"
                ? { wire: "float32" as const }
                : {}
          const settings = rare ? { name, period, ...more } : { name }
          const { planned } = plan(settings as never, dividedProfile(profile, shards), world)
          const steps = periods * planned.periodSteps
          const found = run({
            world,
            costs: makeCostModel({ profile }),
            groups: [division.placeOf(0).shard, division.placeOf(0).peers],
            program: planned.program(profiledModel(profile, { shard: shards, accumulation }), steps)
          }).links

          // Numbers of one rank's part of each unit: places padded to 128 numbers, and parts too.
          const up = (count: number) => 128 * Math.ceil(count / 128)
          const { ranks } = shards
          const partOf = (layers: ReadonlyArray<number>): number => {
            const own = profile.parameters.filter(({ layer }) => layers.includes(layer))
            const sum = (matrices: boolean) =>
              own
                .filter(({ shape }) => shape.length > 1 === matrices)
                .reduce((count, { shape }) => count + up(shape.reduce((a, b) => a * b, 1)), 0)
            return up(Math.ceil(sum(true) / ranks)) + up(Math.ceil(sum(false) / ranks))
          }
          const sumOf = (units: typeof shards.division) =>
            units.reduce((sum, { layers }) => sum + partOf(layers), 0)
          const all = sumOf(shards.division)
          const passing = sumOf(shards.division.filter(({ root }) => !root))
          const wide = dtype === undefined ? 4 : 2
          const summed = reduceDtype === "float32" ? 4 : 2
          const { microBatches = 1, synchronize = "last" } = accumulation ?? {}
          const travels = synchronize === "each" ? microBatches : 1
          const gathers = choices.parameters ? microBatches : 1
          const again = choices.parameters && choices.reshardAfterForward ? passing : 0
          const inside =
            (ranks - 1) *
            (wide * gathers * (all + again) + summed * all * travels * (choices.gradients ? 1 : 2))

          const expected: Tiers = { intra: 0, inter: 0, wan: 0 }
          const groups = (of: "shard" | "peers") => [
            ...new Map(
              world.all.ranks.map((rank) => {
                const group = division.placeOf(rank)[of].ranks
                return [group.join(), group] as const
              })
            ).values()
          ]
          for (const group of groups("shard")) ring(world, group, steps * inside, expected)
          for (const group of groups("peers")) {
            // Parameters or their changes once a period, or gradients after each pass that sends them.
            const averages = rare ? periods * 4 : steps * travels * summed
            ring(world, group, (averages * 2 * (group.length - 1) * all) / group.length, expected)
          }
          for (const tier of ["intra", "inter", "wan"] as const) {
            const bytes = found.filter((link) => link.tier === tier).reduce((sum, one) => sum + one.bytes, 0)
            expect([tier, bytes]).toEqual([tier, expect.closeTo(expected[tier], 2)])
          }
          if (new Set(sites.map((nodes) => nodes.join())).size > 1) seen.uneven++
          if (again > 0 && ranks > 1) seen.gathered++
          if (expected.wan > 0 && rare) seen.crossed++
          seen.names.add(name)
          seen.within.add(within)
        }
      ),
      { numRuns: 120 }
    )
    expect(seen.uneven).toBeGreaterThan(10)
    expect(seen.gathered).toBeGreaterThan(8)
    expect(seen.crossed).toBeGreaterThan(8)
    expect(seen.names.size).toBe(algorithms.length)
    expect(seen.within.size).toBe(3)
  })
})
