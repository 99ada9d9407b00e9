// Worlds whose nodes or sites have unlike numbers of ranks: how a scenario says them, what contradicts itself, and that a world of
// equal nodes is the same however it is said.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"
import { assertLaws } from "../../core/laws/laws.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario, loadScenario } from "../../scenarios/scenario-file.ts"
import { WorldSettings } from "../../scenarios/sections.ts"
import { nodesOf, rankCount, resolveWorld, siteSizes } from "../../scenarios/world.ts"
import { hostOf, runScenario } from "../../sim/run.ts"
import { runCase, runScheduler } from "../../testing/check-scheduler.ts"
import { ranksInput, scenario, type ScenarioInput } from "../../testing/scenario.ts"
import { scenarioFile, small } from "./files.ts"

const decode = Schema.decodeUnknownSync(WorldSettings)

/** Ranks of each node of each site of the world that a scenario says so. */
const nodesSaid = (input: typeof WorldSettings.Encoded): ReadonlyArray<ReadonlyArray<number>> =>
  Effect.runSync(resolveWorld(decode(input), "a.yaml", new Loader())).sites.map(({ nodes }) => nodes)

const refusal = (...sets: ReadonlyArray<string>): string =>
  Effect.runSync(
    Effect.flip(
      Effect.gen(function* () {
        const { scenario: decoded, locate } = yield* loadLocatedScenario(scenarioFile(small), sets)
        yield* Effect.mapError(familyOf(decoded).prepare(decoded, "s.yaml", hostOf(new Loader())), (error) =>
          error instanceof InputError ? locate(error) : error
        )
      })
    )
  ).message

const ran = (...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(small)
  return Effect.runSync(
    Effect.flatMap(loadScenario(file, sets), (loaded) => runScenario(loaded, file, { loader: new Loader() }))
  )
}

describe("a world of unlike nodes", () => {
  it.each<[typeof WorldSettings.Encoded, ReadonlyArray<ReadonlyArray<number>>]>([
    [{ ranksPerNode: [8, 8, 4] }, [[8, 8, 4]]],
    [{ ranks: 20, ranksPerNode: [8, 8, 4] }, [[8, 8, 4]]],
    [
      { ranks: 24, sites: 2, ranksPerNode: [8, 4] },
      [
        [8, 4],
        [8, 4]
      ]
    ],
    [
      {
        sites: [
          { name: "a", ranks: 16, ranksPerNode: 8 },
          { name: "b", ranks: 4, ranksPerNode: 4 }
        ]
      },
      [[8, 8], [4]]
    ],
    [
      {
        ranks: 11,
        ranksPerNode: 2,
        sites: [
          { name: "a", ranks: 4 },
          { name: "b", ranksPerNode: [3, 1] },
          { name: "c", ranks: 3, ranksPerNode: 1 }
        ]
      },
      [
        [2, 2],
        [3, 1],
        [1, 1, 1]
      ]
    ],
    [
      { sites: [{ name: "a" }, { name: "b", ranks: 5 }], ranksPerNode: [3, 2] },
      [
        [3, 2],
        [3, 2]
      ]
    ]
  ])("%j", (input, nodes) => {
    expect(nodesSaid(input)).toEqual(nodes)
    const settings = decode(input)
    expect(nodesOf(settings)).toEqual(nodes)
    const sizes = nodes.map((site) => site.reduce((sum, ranks) => sum + ranks, 0))
    expect(siteSizes(settings)).toEqual(sizes)
    expect(rankCount(settings)).toBe(sizes.reduce((sum, size) => sum + size, 0))
  })

  it.each([
    [
      ["world={sites: [{name: a, ranks: 2}, {name: b, ranks: 2}, {name: a, ranks: 2}]}"],
      "world.sites[2].name: a is not accepted; expected a name of its own: sites[0] has it"
    ],
    [
      ["world={ranks: 4, ranksPerNode: [2, 1]}"],
      "world.ranks: 4 is not accepted; expected 3, the sum of world.ranksPerNode, or nothing"
    ],
    [
      ["world={ranks: 3, sites: 2, ranksPerNode: [2, 1]}"],
      "world.ranks: 3 is not accepted; expected 6, the sum of world.ranksPerNode on each of 2 sites, or nothing"
    ],
    [
      ["ranks=3", "ranksPerNode=2"],
      "world.ranksPerNode: 2 is not accepted; expected a divisor of the 3 ranks of site 0, or a list with the ranks of each node"
    ],
    [
      ["world={ranksPerNode: 8, sites: [{name: a, ranks: 16}, {name: b, ranks: 4}]}"],
      "world.ranksPerNode: 8 is not accepted; expected a divisor of the 4 ranks of b, or a list with the ranks of each node; or ranksPerNode of b's own, beside its ranks"
    ],
    [
      ["world={sites: [{name: a, ranks: 16, ranksPerNode: 8}, {name: b, ranks: 4, ranksPerNode: 3}]}"],
      "world.sites[1].ranksPerNode: 3 is not accepted; expected a divisor of the 4 ranks of b, or a list with the ranks of each node"
    ],
    [
      ["world={sites: [{name: a, ranks: 16, ranksPerNode: [8, 4]}]}"],
      "world.sites[0].ranks: 16 is not accepted; expected 12, the sum of world.sites[0].ranksPerNode, or nothing"
    ],
    [
      ["world={ranksPerNode: [8, 4], sites: [{name: a}, {name: b, ranks: 4}]}"],
      "world.sites[1].ranks: 4 is not accepted; expected 12, the sum of world.ranksPerNode, or nothing; or ranksPerNode of b's own, beside its ranks"
    ],
    [
      ["world={sites: [{name: a, ranksPerNode: 8}]}"],
      "world.sites[0].ranks: expected the number of ranks, or ranksPerNode as a list of each node's"
    ],
    [
      ["world={ranks: 5, sites: [{name: a, ranksPerNode: [2, 1]}]}"],
      "world.ranks: 5 is not accepted; expected 3, the sum over world.sites, or nothing"
    ],
    [["world={ranksPerNode: []}"], "world.ranksPerNode: [] is not accepted; expected a list of at least 1"],
    [
      ["world={ranksPerNode: [2, 0]}"],
      "world.ranksPerNode.1: 0 is not accepted; expected a whole number, from 1 to 1000000"
    ],
    [
      ["world={ranksPerNode: [2, 1.5]}"],
      "world.ranksPerNode.1: 1.5 is not accepted; expected a whole number"
    ],
    [
      ["world={sites: 1000, ranksPerNode: [1000, 1]}"],
      "world.ranksPerNode: 1001000 ranks is not accepted; expected at most 1000000 in all"
    ],
    [
      ["world={sites: [{name: a, ranks: 1000000}, {name: b, ranks: 1}]}"],
      "world.sites: 1000001 ranks is not accepted; expected at most 1000000 in all"
    ],
    [
      ["world={ranksPerNode: [2, 1]}", "shard={within: node}"],
      "shard.within: node (2, 1 ranks) is not accepted; expected nodes of equally many ranks, since a part is averaged with the same part of every other node; or within: world, or no shard, for whole models"
    ],
    [
      ["world={sites: 2, ranksPerNode: [2, 1], links: {wan: {bandwidth: 1GB/s}}}", "shard={within: node}"],
      "every other node; or within: site, or within: world, or no shard, for whole models"
    ],
    [
      [
        "world={sites: [{name: a, ranksPerNode: [2, 2]}, {name: b, ranksPerNode: [1]}]}",
        "shard={within: site}"
      ],
      "shard.within: site (4, 1 ranks) is not accepted; expected sites of equally many ranks, since a part is averaged with the same part of every other site; or within: world, or no shard, for whole models"
    ]
  ])("is refused where it contradicts itself, or what is asked of it: %j", (sets, message) => {
    expect(refusal(...sets)).toContain(message)
  })

  it("is refused by families whose groups take one rank of each node, and says so", async () => {
    const file = new URL("../../scenarios/moe-training.yaml", import.meta.url).pathname
    const error = await Effect.runPromise(
      Effect.flip(
        Effect.flatMap(loadScenario(file, ["world={ranksPerNode: [4, 2]}"]), (loaded) =>
          runScenario(loaded, file, { loader: new Loader() })
        )
      )
    )
    expect(error.message).toMatch(
      /world\.ranksPerNode: 4, 2 is not accepted; expected one number for all nodes/u
    )
  })

  it("is simulated as two kinds of ranks, however many there are, of whole models and of models in parts", () => {
    const world =
      "world={sites: [{name: a, ranks: 9600, ranksPerNode: 8}, {name: b, ranks: 400, ranksPerNode: 4}], links: {intra: {bandwidth: 1GB/s}, inter: {bandwidth: 1Gbit/s}, wan: {bandwidth: 100Mbit/s}}}"
    for (const sets of [[], ["shard={within: world}"], ["algorithm={name: dreamddp, period: 2}"]]) {
      const { result, simulated } = ran(world, "model.layers=60", "steps=1", ...sets)
      expect(result.ranks).toBe(10_000)
      expect(simulated.ranks.map(({ rank, count }) => [rank, count])).toEqual([
        [0, 9600],
        [9600, 400]
      ])
    }
  })
})

describe("a model held by sites of equally many ranks on unlike nodes", () => {
  it.each([
    [[2, 2], [4]],
    [[4], [2, 2]],
    [
      [3, 1],
      [2, 2]
    ]
  ])("is summed in each site as its nodes allow, by laws and bytes: %j and %j", (...nodes) => {
    const limited = { bandwidth: "1Gbit/s", latency: "10us" }
    const { execution } = runScheduler(({ planned, model, steps }) => planned.program(model, steps), {
      profile: undefined,
      scenario: {
        name: "parts",
        model: { layers: 4, parameters: 1e6, stepSeconds: "10ms" },
        world: { ...ranksInput(nodes), links: { intra: limited, inter: limited, wan: limited } },
        // Gradients that stay whole are all-reduced by those who hold the model together.
        shard: { within: "site", parameters: false, gradients: false },
        collectives: { algorithm: "hierarchical" },
        algorithm: { name: "ddp" },
        steps: 2
      }
    })
    assertLaws(execution)
  })
})

/** Each way to say a world of equal nodes with words for unlike ones. */
const otherWords = [
  (nodes: ReadonlyArray<ReadonlyArray<number>>) => ({
    sites: nodes.map((ranksPerNode, index) => ({ name: `site ${index}`, ranksPerNode }))
  }),
  (nodes: ReadonlyArray<ReadonlyArray<number>>) => ({
    sites: nodes.map((site, index) => ({
      name: `site ${index}`,
      ranks: site.length * site[0]!,
      ranksPerNode: site[0]!
    }))
  }),
  (nodes: ReadonlyArray<ReadonlyArray<number>>) =>
    new Set(nodes.map(({ length }) => length)).size > 1
      ? undefined
      : { sites: nodes.length, ranksPerNode: nodes[0]! }
]

describe("a world of equal nodes", () => {
  it("is the same to the bit, however it is said", () => {
    let compared = 0
    fc.assert(
      fc.property(
        scenario({ maxRanksPerNode: 1 }),
        fc.integer({ min: 1, max: 4 }),
        fc.constantFrom(...otherWords),
        ({ scenario: drawn, profile }, perNode, say) => {
          const nodes = nodesOf(decode(drawn.world)).map((site) => site.map(() => perNode))
          const other = say(nodes)
          if (other === undefined) return
          // Faults were drawn for one rank on each node: each of them is there on larger ones, too.
          const { links } = drawn.world ?? {}
          const of = (words: ScenarioInput["world"]) =>
            runCase({
              scenario: { ...drawn, world: { ...words, ...(links === undefined ? {} : { links }) } },
              profile
            })
          const [one, two] = [of(ranksInput(nodes)), of(other)]
          expect(two.result).toEqual(one.result)
          expect(two.simulated.digest).toBe(one.simulated.digest)
          compared++
        }
      )
    )
    expect(compared).toBeGreaterThan(50)
  })
})
