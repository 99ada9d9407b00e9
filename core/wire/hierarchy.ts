// A hierarchical all-reduce, level by level: what is summed inside nodes, then inside sites, then across, and the way back. Knows
// groups of ranks and no links.
import { greatest } from "../extremes.ts"
import { chainOver, ringOver, stepsAlong, type Hop, type Rounds, type Step } from "./hops.ts"

/** One stretch of it: hops that all go on at once, each with as many bytes. */
interface Stretch {
  readonly hops: ReadonlyArray<Hop>
  /** What each hop carries, per byte of the message. */
  readonly unitsPerByte: number
  /** Messages one after another, around rings or along chains. */
  readonly steps: Rounds | ReadonlyArray<Step>
  /** Which collective it is by itself, of how many ranks, and what share of the message one of them puts in. */
  readonly like: { readonly kernel: string; readonly ranks: number; readonly share: number }
}

/**
 * Units of a level (nodes of a team, then sites) of equally many ranks scatter the sum, and ranks in equal places go on with their
 * share. Of unlike sizes they reduce it to the first of each, and these go on, as Horovod does where nodes are not homogeneous
 * (NCCLHierarchicalAllreduce).
 *
 * @param groups groups of equal size that do the same at the same time
 * @param levels of each rank, its unit at each level, inner ones first
 */
export const hierarchyOver = (
  groups: ReadonlyArray<ReadonlyArray<number>>,
  levels: ReadonlyArray<Int32Array>
): ReadonlyArray<Stretch> => {
  // Teams hold the same share of the message and have yet to combine it; at first all ranks of a group hold all of it.
  let teams = groups
  let share = 1
  const inwards: Array<Stretch> = []
  const outwards: Array<Stretch> = []
  for (const unitOf of levels) {
    const units = teams.map((team) => [...Map.groupBy(team, (rank) => unitOf[rank]!).values()])
    const all = units.flat()
    const ranks = greatest(all.map(({ length }) => length))
    const count = units[0]!.length
    // One rank in each, one unit, or not as many for each team: no level to use.
    if (ranks === 1 || count === 1 || units.some(({ length }) => length !== count)) continue
    const steps = ranks - 1
    if (all.every(({ length }) => length === ranks)) {
      const inside = {
        hops: all.flatMap(ringOver),
        unitsPerByte: (share * steps) / ranks,
        steps: { rings: all, steps }
      }
      inwards.push({ ...inside, like: { kernel: "reduce_scatter", ranks, share } })
      outwards.unshift({ ...inside, like: { kernel: "all_gather", ranks, share: share / ranks } })
      teams = units.flatMap((team) => team[0]!.map((_, place) => team.map((unit) => unit[place]!)))
      share /= ranks
    } else {
      const along = (chains: ReadonlyArray<ReadonlyArray<number>>, kernel: string): Stretch => ({
        hops: chains.flatMap(chainOver),
        unitsPerByte: share,
        steps: stepsAlong(chains),
        like: { kernel, ranks, share }
      })
      inwards.push(
        along(
          all.map((unit) => unit.toReversed()),
          "reduce"
        )
      )
      outwards.unshift(along(all, "broadcast"))
      teams = units.map((team) => team.map(([first]) => first!))
    }
  }
  const n = teams[0]!.length
  const across: Stretch = {
    hops: teams.flatMap(ringOver),
    unitsPerByte: (share * 2 * (n - 1)) / n,
    steps: { rings: teams, steps: 2 * (n - 1) },
    like: { kernel: "all_reduce", ranks: n, share }
  }
  return [...inwards, across, ...outwards]
}
