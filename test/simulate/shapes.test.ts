// Which hops stand for all pairs, and what uneven collectives move: held to every pair, and to members counted one by one.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { collective } from "../../core/machine/op.ts"
import { tensorOf } from "../../core/machine/tensor.ts"
import { farthestHops } from "../../core/wire/hops.ts"
import { unevenRows } from "../../core/wire/uneven.ts"
import { flatWorld } from "../simulate/simulated.ts"

describe("hops among which the farthest pair is", () => {
  /** Ranks on nodes, nodes in sites; of each node and of each pair of sites a delay. */
  const groups = fc
    .array(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 }), {
      minLength: 1,
      maxLength: 4
    })
    .chain((sites) =>
      fc.tuple(
        fc.constant(sites),
        fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 12, maxLength: 12 }),
        fc.array(fc.integer({ min: 0, max: 99 }), { minLength: 16, maxLength: 16 }),
        fc.boolean()
      )
    )

  it("are of every kind of pair, where pairs of sites have links of their own too", () => {
    fc.assert(
      fc.property(groups, ([shape, nodeDelays, pairDelays, perPair]) => {
        const nodes = new Map<number, Array<number>>()
        const sites = new Map<number, Array<number>>()
        const nodeOf: Array<number> = []
        const siteOf: Array<number> = []
        shape.forEach((ofSite, site) =>
          ofSite.forEach((ranks) => {
            const node = nodes.size
            nodes.set(node, [])
            for (let i = 0; i < ranks; i++) {
              const rank = nodeOf.length
              nodes.get(node)!.push(rank)
              sites.set(site, [...(sites.get(site) ?? []), rank])
              nodeOf.push(node)
              siteOf.push(site)
            }
          })
        )
        // Inside a node a message pays one delay, else its sender's node's, and across sites that of the pair, or one of all.
        const delay = ([from, to]: readonly [number, number]): number => {
          if (nodeOf[from] === nodeOf[to]) return 1
          const across = siteOf[from] !== siteOf[to]
          const pair = perPair ? 4 * siteOf[from]! + siteOf[to]! : 0
          return 2 + nodeDelays[nodeOf[from]!]! + (across ? 10 + pairDelays[pair]! : 0)
        }
        const hops = farthestHops(nodes, sites, Int32Array.from(nodeOf), perPair)
        const all = nodeOf.flatMap((_, from) =>
          nodeOf.flatMap((__, to): ReadonlyArray<readonly [number, number]> =>
            from === to ? [] : [[from, to]]
          )
        )
        const most = (of: ReadonlyArray<readonly [number, number]>): number => Math.max(0, ...of.map(delay))
        expect(most(hops)).toBe(most(all))
        for (const [from, to] of hops) expect(from).not.toBe(to)
      }),
      { numRuns: 500 }
    )
  })
})

describe("a collective of unlike numbers of rows", () => {
  const tensor = (id: number, rows: number) =>
    tensorOf(id, { name: `t${id}`, shape: [rows, 4], dtype: "float32" })
  const { all } = flatWorld(3)
  const uneven = (
    kernel: "all_gather" | "reduce_scatter" | "all_to_all",
    attributes: Record<string, string>
  ) =>
    unevenRows(
      collective("x", kernels[kernel], Lane.inter, all, [tensor(0, 6)], [tensor(1, 6)], { attributes })
    )!

  it("is like an even one of as many bytes: of a gather the mean, of a scatter all", () => {
    expect(uneven("all_gather", { counts: "1,2,3" })).toEqual({
      rows: [[1, 2, 3]],
      rowBytes: 16,
      messageBytes: 32
    })
    expect(uneven("reduce_scatter", { counts: "1,2,3", reduce: "sum" }).messageBytes).toBe(96)
  })

  it("of an all-to-all as many as the busiest member sends or gets", () => {
    // The first sends 9 rows and nobody gets more than 7; then the last gets 9 and nobody sends more than 7.
    expect(uneven("all_to_all", { matrix: "5,2,2;1,0,0;1,0,0" }).messageBytes).toBe(9 * 16)
    expect(uneven("all_to_all", { matrix: "5,1,1;2,0,0;2,0,0" }).messageBytes).toBe(9 * 16)
  })
})
