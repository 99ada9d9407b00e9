// Who sends to whom in a collective, as hops between ranks: the shapes that network.ts puts on links. Knows no links.

/** A message's sender and receiver. */
export type Hop = readonly [from: number, to: number]

/** Each rank to the next, the last to the first. */
export const ringOver = (ranks: ReadonlyArray<number>): ReadonlyArray<Hop> =>
  ranks.map((rank, i) => [rank, ranks[(i + 1) % ranks.length]!])

/** Each rank to the next, from the first on. */
export const chainOver = (ranks: ReadonlyArray<number>): ReadonlyArray<Hop> =>
  ranks.slice(1).map((rank, i) => [ranks[i]!, rank])

/** There and back again. */
export const bothWays = (hops: ReadonlyArray<Hop>): ReadonlyArray<Hop> =>
  hops.flatMap(([from, to]): ReadonlyArray<Hop> => [
    [from, to],
    [to, from]
  ])

/**
 * Up and down two binary trees, of which each rank is in both: tree 2 is tree 1 shifted by one rank, which makes the leaves of one
 * the inner ranks of the other (Sanders, Speck and Traeff, 2009).
 */
export const treesOver = (ranks: ReadonlyArray<number>): ReadonlyArray<Hop> => {
  const n = ranks.length
  const hops: Array<Hop> = []
  for (const shift of [0, 1])
    for (let i = 1; i < n; i++) {
      const child = ranks[(i + shift) % n]!
      const parent = ranks[(inOrderParent(i, n) + shift) % n]!
      hops.push([child, parent], [parent, child])
    }
  return hops
}

/** Levels of such a tree: log2(n), rounded up, without a logarithm, for engines differ in the last bit of one. */
export const levelsOf = (n: number): number => (n < 2 ? 0 : 32 - Math.clz32(n - 1))

/**
 * Parent of node `i` in the in-order binary tree over 0..n-1 rooted at 0: clear the lowest set bit, and set the next
 * one if the result stays below n (the layout of NCCL's ncclGetBtree).
 */
const inOrderParent = (i: number, n: number): number => {
  const bit = i & -i
  const up = (i ^ bit) | (bit << 1)
  return up < n ? up : i ^ bit
}

/**
 * Hops among which is the farthest of all pairs of a group, though there are not many more of them than ranks: how far a message
 * goes depends on who sends it and on whether it leaves the node and the site, and on where it goes only where pairs of sites have
 * links of their own (`perPair`).
 *
 * @param nodes the group's ranks on each node
 * @param sites the group's ranks in each site
 */
export const farthestHops = (
  nodes: ReadonlyMap<number, ReadonlyArray<number>>,
  sites: ReadonlyMap<number, ReadonlyArray<number>>,
  nodeOf: Int32Array,
  perPair: boolean
): ReadonlyArray<Hop> => {
  const hops: Array<Hop> = []
  for (const [head, second, ...others] of nodes.values()) {
    if (second === undefined) continue
    hops.push([head!, second], [second, head!])
    for (const rank of others) hops.push([rank, head!])
  }
  const heads = [...sites.values()].map(([head]) => head!)
  for (const members of sites.values()) {
    const head = members[0]!
    const elsewhere = members.find((rank) => nodeOf[rank] !== nodeOf[head])
    const abroad = perPair ? heads.filter((rank) => rank !== head) : [heads.find((rank) => rank !== head)]
    const senders = new Map(members.map((rank) => [nodeOf[rank]!, rank]))
    for (const [node, rank] of senders)
      for (const to of [node === nodeOf[head] ? elsewhere : head, ...abroad])
        if (to !== undefined) hops.push([rank, to])
  }
  return hops
}
