// Which bytes a collective puts on which tier of links, counted hop by hop from the world alone: an independent account to
// hold a machine's own against. Knows nothing of time, nor of how the simulator lays collectives out.
import type { CollectiveAlgorithm } from "../core/wire/network.ts"
import type { World } from "../core/world.ts"

/** Where a link is: inside a node, between nodes, between sites. */
export type Tier = "intra" | "inter" | "wan"
/** Bytes on all links of a tier, both directions. */
export type TierBytes = ReadonlyArray<readonly [Tier, number]>

type Hop = readonly [from: number, to: number]

const ring = (ranks: ReadonlyArray<number>): ReadonlyArray<Hop> =>
  ranks.length < 2 ? [] : ranks.map((rank, i) => [rank, ranks[(i + 1) % ranks.length]!])

/** Both of NCCL's binary trees, every edge in both directions. In tree order, node i > 0 with lowest set bit b hangs below
 * that neighbour at distance b whose lowest set bit is 2b, or below i - b where that lies outside. */
const doubleTree = (ranks: ReadonlyArray<number>): ReadonlyArray<Hop> => {
  const n = ranks.length
  const hops: Array<Hop> = []
  // The mirror of the first where their number is even; shifted by one where it is odd.
  const second = n % 2 === 0 ? ranks.toReversed() : ranks.map((_, i) => ranks[(i + 1) % n]!)
  for (const own of [ranks, second]) {
    for (let i = 1; i < n; i++) {
      let bit = 1
      while ((i / bit) % 2 === 0) bit *= 2
      const above = [i - bit, i + bit].find((j) => (j / bit) % 4 === 2) ?? n
      const parent = above < n ? above : i - bit
      const [a, b] = [own[i]!, own[parent]!]
      hops.push([a, b], [b, a])
    }
  }
  return hops
}

/** Bytes that cross each tier when every hop carries so many. */
const over = (world: World, hops: ReadonlyArray<Hop>, bytesPerHop: number): TierBytes => {
  let [intra, inter, wan] = [0, 0, 0]
  const { wan: between } = world.links
  for (const [a, b] of hops) {
    if (a === b) continue
    if (world.nodeOf[a] === world.nodeOf[b]) {
      intra += 2
      continue
    }
    inter += 2
    const [from, to] = [world.siteOf[a]!, world.siteOf[b]!]
    if (from === to || between === undefined) continue
    // A pair of sites has one link in each direction; without pairs, one site's uplink and another's downlink are crossed.
    wan += "pairs" in between ? 1 : 2
  }
  return [
    ["intra", intra * bytesPerHop],
    ["inter", inter * bytesPerHop],
    ["wan", wan * bytesPerHop]
  ]
}

/** Bytes of one collective of `sizeBytes` over `ranks`, of a broadcast its root first, by tier; undefined for none that is known. `sumBytes`: of an all-reduce's sums. */
export const tierBytes = (
  world: World,
  algorithm: CollectiveAlgorithm,
  kernel: string,
  ranks: ReadonlyArray<number>,
  sizeBytes: number,
  sumBytes = sizeBytes
): TierBytes | undefined => {
  const n = ranks.length
  if (n < 2) return []
  // Everyone to everyone, without a way round: a byte crosses from its source to where it is wanted.
  const pairs = ranks.flatMap((a) => ranks.map((b): Hop => [a, b]))
  const direct = algorithm === "direct"
  switch (kernel) {
    case "all_reduce":
      // Parts of what is sent one way and of sums back; or everything to everybody, where that is less.
      if (direct) return over(world, pairs, Math.min(sizeBytes, (sizeBytes + sumBytes) / n))
      if (algorithm === "tree") return tree(world, ranks, sizeBytes)
      if (algorithm === "hierarchical") return hierarchical(world, ranks, sizeBytes)
      return over(world, ring(ranks), (2 * (n - 1) * sizeBytes) / n)
    case "reduce_scatter":
      if (direct) return over(world, pairs, sizeBytes / n)
      return over(world, ring(ranks), ((n - 1) * sizeBytes) / n)
    case "all_gather":
      if (direct) return over(world, pairs, sizeBytes)
      return over(world, ring(ranks), (n - 1) * sizeBytes)
    case "broadcast":
      if (direct) {
        // Its root sends each other a share and that one's own, which these hand to each other.
        const [root, ...others] = ranks
        const sent = others.map((rank): Hop => [root!, rank])
        const handed = others.flatMap((a) => others.map((b): Hop => [a, b]))
        return [...over(world, sent, (2 * sizeBytes) / n), ...over(world, handed, sizeBytes / n)]
      }
      return over(world, ring(ranks).slice(0, -1), sizeBytes)
    case "all_to_all":
      return over(world, pairs, sizeBytes / n)
    case "send_recv":
      return over(world, [[ranks[0]!, ranks[1]!]], sizeBytes)
    default:
      return undefined
  }
}

/** Both trees over one rank of each node, with half each; all of it along each node's other ranks, in and out again. */
const tree = (world: World, ranks: ReadonlyArray<number>, sizeBytes: number): TierBytes => {
  const nodes = [...new Set(ranks.map((rank) => world.nodeOf[rank]!))]
  const heads = nodes.map((node) => ranks.find((rank) => world.nodeOf[rank] === node)!)
  const chained: TierBytes = [["intra", 2 * 2 * (ranks.length - heads.length) * sizeBytes]]
  return [...over(world, doubleTree(heads), sizeBytes / 2), ...chained]
}

/** Summed inside nodes, then sites, then across, and back: equal shares to equal places, or all of it to the first of each. */
const hierarchical = (world: World, ranks: ReadonlyArray<number>, sizeBytes: number): TierBytes => {
  const totals: Record<Tier, number> = { intra: 0, inter: 0, wan: 0 }
  const carry = (hops: ReadonlyArray<Hop>, bytes: number): void => {
    for (const [tier, more] of over(world, hops, bytes)) totals[tier] += more
  }
  const combine = (team: ReadonlyArray<number>, bytes: number, levels: ReadonlyArray<Int32Array>): void => {
    const [unitOf, ...outer] = levels
    if (unitOf === undefined) {
      carry(ring(team), (2 * (team.length - 1) * bytes) / team.length)
      return
    }
    const units = [...new Set(team.map((rank) => unitOf[rank]!))].map((unit) =>
      team.filter((rank) => unitOf[rank] === unit)
    )
    const n = units[0]!.length
    if (units.length === 1 || units.length === team.length) combine(team, bytes, outer)
    else if (units.every(({ length }) => length === n)) {
      for (const unit of units) carry(ring(unit), (2 * (n - 1) * bytes) / n)
      for (let place = 0; place < n; place++)
        combine(
          units.map((unit) => unit[place]!),
          bytes / n,
          outer
        )
    } else {
      for (const unit of units) carry(ring(unit).slice(0, -1), 2 * bytes)
      combine(
        units.map((unit) => unit[0]!),
        bytes,
        outer
      )
    }
  }
  combine(ranks, sizeBytes, [world.nodeOf, world.siteOf])
  return [
    ["intra", totals.intra],
    ["inter", totals.inter],
    ["wan", totals.wan]
  ]
}
