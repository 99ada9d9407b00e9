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
 * Two binary trees over the ranks, each as hops from child to parent, a parent's own before those of its children. Each rank is in
 * both: tree 2 is the mirror of tree 1 where ranks are even in number, and tree 1 shifted by one rank where they are odd, which makes the
 * leaves of one the inner ranks of the other (Sanders, Speck and Traeff, 2009; NCCL's ncclGetDtree).
 */
export const treesOver = (ranks: ReadonlyArray<number>): ReadonlyArray<ReadonlyArray<Hop>> => {
  const n = ranks.length
  const second = n % 2 === 0 ? ranks.toReversed() : [...ranks.slice(1), ...ranks.slice(0, 1)]
  // The lower a node's lowest bit, the deeper it is.
  const downwards = Array.from({ length: Math.max(0, n - 1) }, (_, i) => i + 1).toSorted(
    (a, b) => (b & -b) - (a & -a)
  )
  return [ranks, second].map((own) => downwards.map((i): Hop => [own[i]!, own[inOrderParent(i, n)]!]))
}

/** One of the steps that a message takes one after another: which earlier one of a list it follows, none at first, and its hops. */
export interface Step {
  readonly after: number | undefined
  readonly hops: ReadonlyArray<Hop>
}

/** Messages that every rank of each ring hands to the next at once, what it has just got, so many times one after another. */
export interface Rounds {
  readonly rings: ReadonlyArray<ReadonlyArray<number>>
  readonly steps: number
  /** Places in a ring where messages begin that are not empty; any, where it is left out. */
  readonly begins?: ReadonlyArray<number>
}

/** A message's steps along each of these chains of ranks. */
export const stepsAlong = (chains: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  for (const ranks of chains) {
    let after: number | undefined
    for (const hop of chainOver(ranks)) after = steps.push({ after, hops: [hop] }) - 1
  }
  return steps
}

/** From the first rank of each node down the trees over all of these (`trees`), on along the node's others, and back on the same way. */
export const stepsOfTrees = (
  trees: ReadonlyArray<ReadonlyArray<Hop>>,
  nodes: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  for (const tree of trees) {
    const reached = new Map<number, number>()
    for (const hop of tree)
      reached.set(hop[0], steps.push({ after: reached.get(hop[1]), hops: bothWays([hop]) }) - 1)
    for (const ranks of nodes) {
      let after = reached.get(ranks[0]!)
      for (const hop of chainOver(ranks)) after = steps.push({ after, hops: bothWays([hop]) }) - 1
    }
  }
  return steps
}

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

/** Bytes a ring puts on each link it crosses, per byte of one rank's input: the factor all ring models share. */
export const wireUnits = (kernel: string, ranks: number): number => {
  switch (kernel) {
    case "all_reduce":
      return (2 * (ranks - 1)) / ranks
    case "reduce_scatter":
    case "all_to_all":
      return (ranks - 1) / ranks
    case "all_gather":
      return ranks - 1
    default:
      return 1
  }
}
