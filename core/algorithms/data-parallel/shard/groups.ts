// Who holds which part: the ranks that divide a model among them, and those elsewhere that hold the same part. Knows the world's
// grouping and nothing of models.
import type { Group, World } from "../../../world.ts"

/** Over what a model is divided: each node, each site, or all ranks hold it once. */
type Within = "node" | "site" | "world"

/** A rank's place among those that hold a model together. */
interface Place {
  /** They hold a model once. */
  readonly shard: Group
  /** Which part is the rank's, from 0. */
  readonly position: number
  /** All who hold the same part: one of each division. */
  readonly peers: Group
}

export interface Division {
  /** Parts of a model. */
  readonly ranks: number
  readonly placeOf: (rank: number) => Place
}

/** Sizes of the divisions, where they are not all alike: then parts would not answer to each other. */
interface Uneven {
  readonly sizes: ReadonlyArray<number>
}

export const divide = (world: World, within: Within): Division | Uneven => {
  const unitOf = { node: world.nodeOf, site: world.siteOf, world: new Int32Array(world.size) }[within]
  const divisions = [...Map.groupBy(world.all.ranks, (rank) => unitOf[rank]!).values()]
  const ranks = divisions[0]!.length
  if (divisions.some(({ length }) => length !== ranks))
    return { sizes: divisions.map(({ length }) => length) }
  const across = divisions[0]!.map((_, position) => divisions.map((division) => division[position]!))
  const shards = divisions.map((own, index): Group => ({
    name: divisions.length === 1 ? "shard" : `shard ${index}`,
    ranks: own,
    alike: divisions
  }))
  const peers = across.map((own, position): Group => ({
    name: ranks === 1 ? "peers" : `peers ${position}`,
    ranks: own,
    alike: across
  }))
  const places = new Map<number, Place>()
  divisions.forEach((division, index) =>
    division.forEach((rank, position) =>
      places.set(rank, { shard: shards[index]!, position, peers: peers[position]! })
    )
  )
  return { ranks, placeOf: (rank) => places.get(rank)! }
}
