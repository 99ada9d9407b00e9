// The bytes that tables show are those of the links that a study is about: the outermost ones in use.
import { describe, expect, it } from "vitest"
import type { LinkResult } from "../../core/wire/network.ts"
import { linkBytesLabel, linkBytesPerStep } from "../../sim/link-traffic.ts"

const link = (tier: LinkResult["tier"], count: number, bytes: number): LinkResult => ({
  name: tier,
  tier,
  count,
  bytes,
  busySeconds: 0
})

// 498 MB over two sites of four ranks, hierarchical: 2 * 3/4 of it on every rank's port, 2 * 1/2 of a quarter from each rank
// through its site's uplink, so all of it once; over ten steps, two of them warm-up.
const message = 498e6
const sites = [
  link("intra", 8, 10 * 8 * 1.5 * message),
  link("intra", 8, 10 * 8 * 1.5 * message),
  link("inter", 2, 10 * 2 * message),
  link("inter", 2, 10 * 2 * message),
  link("wan", 2, 10 * 2 * message),
  link("wan", 2, 10 * 2 * message)
]
const run = { links: sites, steps: 8, warmupSteps: 2 }
const nodes = { ...run, links: sites.map((each) => (each.tier === "wan" ? { ...each, bytes: 0 } : each)) }

describe("bytes of a step", () => {
  it("are those of the busiest link between sites, though ports inside nodes carry more", () => {
    expect(linkBytesPerStep(run)).toBe(message)
    const slow = link("wan", 1, 30 * message)
    expect(linkBytesPerStep({ ...run, links: [...sites, slow] })).toBe(3 * message)
  })

  it("are of the outermost tier that carries anything, and none where nothing is sent", () => {
    expect(linkBytesPerStep({ ...run, links: nodes.links.slice(0, 2) })).toBe(1.5 * message)
    expect(linkBytesPerStep({ ...run, links: [] })).toBe(0)
    expect(linkBytesPerStep({ links: sites })).toBeUndefined()
  })

  it("are headed with their tier where it is one", () => {
    expect(linkBytesLabel([run, run])).toBe("sent between sites")
    expect(linkBytesLabel([run, { links: [] }])).toBe("sent between sites")
    expect(linkBytesLabel([run, nodes])).toBe("sent per step")
  })
})
