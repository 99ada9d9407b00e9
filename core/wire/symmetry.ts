// Which ranks are interchangeable. Interchangeable ranks run the same program on equal hardware and so do the same thing
// at the same time: one of them is simulated and counted for all. Cost then grows with distinct behaviour, not ranks.
import type { World } from "../world.ts"

/** A partition of ranks, nodes or sites into classes; classes are numbered by their first member. */
export interface Classes {
  readonly classOf: Int32Array
  /** First member of each class: the one that is simulated. */
  readonly representatives: ReadonlyArray<number>
  readonly sizes: ReadonlyArray<number>
}

export interface Symmetry {
  readonly ranks: Classes
  readonly nodes: Classes
  readonly sites: Classes
}

/** What makes a rank, a node's interface or a site's uplink differ from its like; equal keys mean interchangeable. */
interface Distinctions {
  readonly rank: (rank: number) => string
  readonly node: (node: number) => string
  readonly site: (site: number) => string
}

const classify = (count: number, keyOf: (index: number) => string): Classes => {
  const classOf = new Int32Array(count)
  const representatives: Array<number> = []
  const sizes: Array<number> = []
  const known = new Map<string, number>()
  for (let i = 0; i < count; i++) {
    const key = keyOf(i)
    let id = known.get(key)
    if (id === undefined) {
      id = representatives.length
      known.set(key, id)
      representatives.push(i)
      sizes.push(0)
    }
    classOf[i] = id
    sizes[id] = sizes[id]! + 1
  }
  return { classOf, representatives, sizes }
}

/**
 * Two sites are alike when their uplinks are and they hold the same number of nodes of each kind; two nodes when their
 * sites and interfaces are alike and they hold the same number of ranks of each kind; two ranks when their nodes are
 * alike and nothing distinguishes the ranks themselves.
 */
export const interchangeable = (world: World, distinctions: Distinctions): Symmetry => {
  const ranksOfNode: Array<Array<number>> = []
  const siteOfNode: Array<number> = []
  for (let rank = 0; rank < world.size; rank++) {
    const node = world.nodeOf[rank]!
    ;(ranksOfNode[node] ??= []).push(rank)
    siteOfNode[node] = world.siteOf[rank]!
  }
  const rankKeys = Array.from({ length: world.size }, (_, rank) => distinctions.rank(rank))
  const nodeOwn = ranksOfNode.map((ranks, node) =>
    JSON.stringify([distinctions.node(node), ranks.map((rank) => rankKeys[rank]!).toSorted()])
  )
  const nodesOfSite: Array<Array<string>> = world.sites.map(() => [])
  siteOfNode.forEach((site, node) => nodesOfSite[site]!.push(nodeOwn[node]!))
  const sites = classify(world.sites.length, (site) =>
    JSON.stringify([distinctions.site(site), nodesOfSite[site]!.toSorted()])
  )
  const nodes = classify(nodeOwn.length, (node) => `${sites.classOf[siteOfNode[node]!]} ${nodeOwn[node]}`)
  const ranks = classify(world.size, (rank) => `${nodes.classOf[world.nodeOf[rank]!]} ${rankKeys[rank]}`)
  return { ranks, nodes, sites }
}

/** Whether all groups have as many ranks of each class, or are of one rank, which meets nobody: then one can stand for all. */
export const composedAlike = (
  { classOf }: Classes,
  groups: ReadonlyArray<ReadonlyArray<number>>
): boolean => {
  const countsOf = (ranks: ReadonlyArray<number>): ReadonlyMap<number, number> => {
    const counts = new Map<number, number>()
    for (const rank of ranks) counts.set(classOf[rank]!, (counts.get(classOf[rank]!) ?? 0) + 1)
    return counts
  }
  if (groups.every(({ length }) => length === 1)) return true
  const first = countsOf(groups[0] ?? [])
  return groups.every((ranks) => {
    const counts = countsOf(ranks)
    return counts.size === first.size && [...counts].every(([id, count]) => first.get(id) === count)
  })
}

/** Groups that do the same at the same time, by how they are composed, each kind in order of its members' classes: one group of each. */
export const kindsOf = (
  { classOf }: Classes,
  groups: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<ReadonlyArray<number>> => {
  const kinds = new Map<string, ReadonlyArray<number>>()
  for (const ranks of groups) {
    const key = ranks.map((rank) => classOf[rank]!).join(" ")
    if (!kinds.has(key)) kinds.set(key, ranks)
  }
  return [...kinds.values()]
}

/** What sets a site apart before anything happens to it: with a link for each pair of sites no two sites are alike. */
export const siteKey = ({ links: { wan } }: World, site: number): string =>
  wan !== undefined && "pairs" in wan ? `${site} ` : ""

/** The world as it is stated, before anything goes wrong: what planners reckon with. */
export const asStated = (world: World): Symmetry =>
  interchangeable(world, { rank: () => "", node: () => "", site: (site) => siteKey(world, site) })

/** Every rank simulated by itself. */
export const distinct = (world: World): Symmetry =>
  interchangeable(world, {
    rank: (rank) => String(rank),
    node: (node) => String(node),
    site: (site) => String(site)
  })
