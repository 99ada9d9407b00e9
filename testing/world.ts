// Generated worlds: sites of uneven nodes, joined by links from unlimited to painfully slow.
import * as fc from "fast-check"
import { makeWorld, type LinkSpec, type Links, type Site, type World, type WanPairs } from "../core/world.ts"

/** Bandwidths as scenarios write them; shrinking moves towards the first. */
export const bandwidths = [
  "unlimited",
  "100Gbit/s",
  "10Gbit/s",
  "1Gbit/s",
  "333Mbit/s",
  "100Mbit/s",
  "10Mbit/s"
] as const

/** One-way delays as scenarios write them; shrinking moves towards the first. */
export const latencies = ["0s", "5us", "100us", "1ms", "40ms", "150ms"] as const

const gigabit = 125e6
const specs = {
  bytesPerSecond: [Infinity, 100, 10, 1, 0.333, 0.1, 0.01].map((gigabits) => gigabits * gigabit),
  latencySeconds: [0, 5e-6, 1e-4, 1e-3, 0.04, 0.15],
  windowBytes: [undefined, undefined, undefined, 4e6, 65536]
}

/** One direction of a link: unlimited, fast or slow; without delay, near or across an ocean; now and then with a window. */
export const link = (): fc.Arbitrary<LinkSpec> =>
  fc.record({
    bytesPerSecond: fc.constantFrom(...specs.bytesPerSecond),
    latencySeconds: fc.constantFrom(...specs.latencySeconds),
    windowBytes: fc.constantFrom(...specs.windowBytes)
  })

/** How large a world is. */
export interface WorldConstraints {
  /** Default 6. */
  readonly maxSites?: number
  /** Default 3. */
  readonly maxNodesPerSite?: number
  /** Default 4. */
  readonly maxRanksPerNode?: number
  /** Whether sites may be joined pair by pair. Default true. */
  readonly pairs?: boolean
}

/** A world of up to 6 sites whose nodes need not be equal. */
export const world = (constraints: WorldConstraints = {}): fc.Arbitrary<World> => {
  const { maxSites = 6, maxNodesPerSite = 3, maxRanksPerNode = 4, pairs = true } = constraints
  const nodes = fc.oneof(
    fc.array(fc.integer({ min: 1, max: maxRanksPerNode }), { minLength: 1, maxLength: maxNodesPerSite }),
    // Worlds are often regular, and only regular ones have interchangeable ranks.
    fc
      .tuple(fc.integer({ min: 1, max: maxNodesPerSite }), fc.integer({ min: 1, max: maxRanksPerNode }))
      .map(([count, ranks]) => Array.from({ length: count }, () => ranks))
  )
  const sites = fc.oneof(
    fc.array(nodes, { minLength: 1, maxLength: maxSites }),
    fc
      .tuple(fc.integer({ min: 1, max: maxSites }), nodes)
      .map(([count, each]) => Array.from({ length: count }, () => each))
  )
  return fc
    .record({
      sites,
      intra: link(),
      inter: link(),
      wan: fc.option(
        pairs
          ? fc.oneof(
              link(),
              fc.array(link(), { minLength: 15, maxLength: 15 }).map((links) => ({ links }))
            )
          : link(),
        { nil: undefined }
      )
    })
    .map(({ sites: counts, intra, inter, wan }) => {
      const named = counts.map((ranks, index): Site => ({ name: `site ${index}`, nodes: ranks }))
      return makeWorld(named, {
        intra,
        inter,
        wan: wan !== undefined && "links" in wan ? pairsOf(named, wan.links) : wan
      } satisfies Links)
    })
}

const pairsOf = (sites: ReadonlyArray<Site>, links: ReadonlyArray<LinkSpec>): WanPairs => {
  const pairs: Array<WanPairs["pairs"][number]> = []
  sites.forEach((from, a) =>
    sites.slice(a + 1).forEach((to) => {
      pairs.push({ from: from.name, to: to.name, link: links[pairs.length % links.length]! })
    })
  )
  return { pairs }
}
