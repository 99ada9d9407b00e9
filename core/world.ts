// All ranks, their grouping into nodes and sites, and the links between them. Says what is joined to what and how fast;
// how bytes share a link is the simulator's business, how they are sent the executor's.
// Knows nothing of models, programs or time.

import { mostRanks } from "./bounds.ts"

/** One direction of a link. */
export interface LinkSpec {
  readonly bytesPerSecond: number
  /** One-way delay of crossing it, seconds. */
  readonly latencySeconds: number
  /** Most bytes of one rank's to another that may be on their way across it, over all connections of the two. Default: any. */
  readonly windowBytes?: number | undefined
}

export interface Site {
  readonly name: string
  /** Ranks on each node of the site. */
  readonly nodes: ReadonlyArray<number>
}

/**
 * Three tiers, each full duplex. `intra`: every rank's port into its node (NVLink, PCIe). `inter`: every node's network
 * interface, shared by the node's ranks. `wan`: what leaves a site, either one uplink per site or one link per pair.
 */
export interface Links {
  readonly intra: LinkSpec
  readonly inter: LinkSpec
  readonly wan: LinkSpec | WanPairs | undefined
}

/** A link of its own for each pair of sites. */
export interface WanPairs {
  readonly pairs: ReadonlyArray<{ readonly from: string; readonly to: string; readonly link: LinkSpec }>
}

/** An ordered set of ranks that communicate with each other: a communicator. */
export interface Group {
  readonly name: string
  readonly ranks: ReadonlyArray<number>
  /**
   * Groups that do the same at the same time, this one among them: a group for each node, say. Where ranks are
   * interchangeable, one of the groups stands for all; otherwise they change nothing.
   */
  readonly alike?: ReadonlyArray<ReadonlyArray<number>> | undefined
}

export interface World {
  readonly size: number
  readonly sites: ReadonlyArray<Site>
  readonly links: Links
  /** Node of each rank, counted over the whole world. */
  readonly nodeOf: Int32Array
  /** Site of each rank, an index into `sites`. */
  readonly siteOf: Int32Array
  /** Every rank, in order: site by site, node by node. */
  readonly all: Group
}

const requireLink = (name: string, { bytesPerSecond, latencySeconds, windowBytes }: LinkSpec): void => {
  if (!(bytesPerSecond >= 0))
    throw new RangeError(`${name}: bytesPerSecond is ${bytesPerSecond}; expected at least 0, or Infinity`)
  if (!(latencySeconds >= 0 && latencySeconds < Infinity))
    throw new RangeError(`${name}: latencySeconds is ${latencySeconds}; expected a time of at least 0`)
  if (windowBytes !== undefined && !(windowBytes > 0))
    throw new RangeError(`${name}: windowBytes is ${windowBytes}; expected more than 0`)
}

/** Times on a link of no number are none, and would be compared like any others. */
const requireWorld = (sites: ReadonlyArray<Site>, { intra, inter, wan }: Links): void => {
  for (const { name, nodes } of sites) {
    const odd = nodes.find((ranks) => !(Number.isInteger(ranks) && ranks >= 0 && ranks <= mostRanks))
    if (odd !== undefined)
      throw new RangeError(`site ${name}: a node of ${odd} ranks; expected a whole number up to ${mostRanks}`)
  }
  requireLink("links.intra", intra)
  requireLink("links.inter", inter)
  if (wan === undefined) return
  if (!("pairs" in wan)) return requireLink("links.wan", wan)
  for (const { from, to, link } of wan.pairs) requireLink(`links.wan, ${from} to ${to}`, link)
}

/**
 * Ranks are numbered site by site and, inside a site, node by node. Throws RangeError where ranks are no whole numbers, or a link
 * has no bandwidth and latency that are.
 */
export const makeWorld = (sites: ReadonlyArray<Site>, links: Links): World => {
  requireWorld(sites, links)
  let size = 0
  for (const site of sites) for (const ranks of site.nodes) size += ranks
  const nodeOf = new Int32Array(size)
  const siteOf = new Int32Array(size)
  let rank = 0
  let node = 0
  sites.forEach((site, siteIndex) => {
    for (const ranks of site.nodes) {
      for (let i = 0; i < ranks; i++, rank++) {
        nodeOf[rank] = node
        siteOf[rank] = siteIndex
      }
      node++
    }
  })
  const all: Group = { name: "world", ranks: Array.from({ length: size }, (_, i) => i) }
  return { size, sites, links, nodeOf, siteOf, all }
}

/** A link that takes no time, and links of which none does. */
export const unlimited: LinkSpec = { bytesPerSecond: Infinity, latencySeconds: 0 }
export const unlimitedLinks: Links = { intra: unlimited, inter: unlimited, wan: undefined }

/** One rank, alone. */
export const oneRank: World = makeWorld([{ name: "site", nodes: [1] }], unlimitedLinks)

/** Every rank on the same node as `rank`. */
export const nodeGroup = (world: World, rank: number): Group => {
  const node = world.nodeOf[rank]!
  return { name: `node ${node}`, ranks: world.all.ranks.filter((other) => world.nodeOf[other] === node) }
}

/** The ranks that hold the same position on their node as `rank` does on its own: one per node. */
export const acrossNodesGroup = (world: World, rank: number): Group => {
  const position = positionOnNode(world, rank)
  return {
    name: `across nodes ${position}`,
    ranks: world.all.ranks.filter((other) => positionOnNode(world, other) === position)
  }
}

/** Whether all of these ranks are on one node. */
export const onOneNode = ({ nodeOf }: World, ranks: ReadonlyArray<number>): boolean =>
  ranks.every((rank) => nodeOf[rank] === nodeOf[ranks[0]!])

const positionOnNode = (world: World, rank: number): number => {
  let first = rank
  while (first > 0 && world.nodeOf[first - 1] === world.nodeOf[rank]) first--
  return rank - first
}
