// The communicators of expert-parallel training, from where a rank is in the world. Knows nothing of what they carry.
import type { Group, World } from "../../world.ts"

export interface MoeGroups {
  readonly nodes: number
  readonly perNode: number
  /** Node of this rank: its place in `across`. */
  readonly node: number
  /** Position on its node: its place in `inNode`. */
  readonly position: number
  /** Ranks of the node: MP and ESP. */
  readonly inNode: Group
  /** Ranks at this position of every node: EP, and DP of what is not an expert. */
  readonly across: Group
  /** Everyone: gradients of what all ranks hold alike. */
  readonly all: Group
}

/** Throws RangeError when nodes have different numbers of ranks. */
export const moeGroups = (world: World, rank: number): MoeGroups => {
  const inNodes = [...Map.groupBy(world.all.ranks, (one) => world.nodeOf[one]!).values()]
  const perNode = inNodes[0]!.length
  if (inNodes.some((ranks) => ranks.length !== perNode)) {
    throw new RangeError("expert-parallel training needs as many ranks on each node")
  }
  const across = inNodes[0]!.map((_, position) => inNodes.map((ranks) => ranks[position]!))
  const node = world.nodeOf[rank]!
  const position = inNodes[node]!.indexOf(rank)
  return {
    nodes: inNodes.length,
    perNode,
    node,
    position,
    inNode: { name: `node ${node}`, ranks: inNodes[node]!, alike: inNodes },
    across: { name: `across nodes ${position}`, ranks: across[position]!, alike: across },
    all: world.all
  }
}
