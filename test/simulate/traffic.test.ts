// Two accounts of what collectives put on links, of which neither knows the other: the simulator's, link by link, and the laws', tier by tier.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { makeWorld } from "../../core/world.ts"
import { collectiveAlgorithms, Network } from "../../core/wire/network.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { tierBytes } from "../../testing/traffic.ts"

const kinds = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"] as const

it("laws expect of every tier what the simulator puts on its links", () => {
  const spec = { bytesPerSecond: 1, latencySeconds: 0 }
  const nodes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(
      fc.array(nodes, { minLength: 1, maxLength: 3 }),
      fc.constantFrom(...kinds),
      fc.constantFrom(...collectiveAlgorithms),
      fc.nat(),
      (sites, kernel, algorithm, drawn) => {
        const world = makeWorld(
          sites.map((own, i) => ({ name: `site ${i}`, nodes: own })),
          { intra: spec, inter: spec, wan: spec }
        )
        fc.pre(world.size > 1)
        const { ranks } = world.all
        const group = kernel === "send_recv" ? [ranks[0]!, ranks[(drawn % (world.size - 1)) + 1]!] : ranks
        const root = kernel === "broadcast" ? drawn % world.size : 0
        const network = new Network(world, distinct(world))
        const carried: Record<string, number> = { intra: 0, inter: 0, wan: 0 }
        const short = true
        for (const { links, totals, unitsPerByte } of network.phases(
          kernel,
          algorithm,
          [group],
          root,
          1,
          short
        ))
          links.forEach((id, i) => (carried[network.links[id]!.tier]! += totals[i]! * unitsPerByte))
        const ordered = [...group.slice(root), ...group.slice(0, root)]
        const expected: Record<string, number> = { intra: 0, inter: 0, wan: 0 }
        for (const [tier, bytes] of tierBytes(world, algorithm, kernel, ordered, 1)!) expected[tier]! += bytes
        for (const tier of ["intra", "inter", "wan"])
          expect(carried[tier], tier).toBeCloseTo(expected[tier]!, 9)
      }
    ),
    { numRuns: 500 }
  )
})
