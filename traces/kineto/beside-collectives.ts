// How much longer kernels take while collectives run beside them: kernels of the same op of like blocks are compared, those that ran
// beside a collective with those that did not. Knows layers by name; nothing of hosts.
import { coverage, type Stretches } from "./intervals.ts"
import { median } from "../../core/median.ts"

/** Kernels of the model in columns, in the order in which the device ran them. Microseconds. */
export interface Pieces {
  readonly length: number
  readonly start: Float64Array
  readonly end: Float64Array
  /** The same for the same kernel of like blocks and of other steps. */
  readonly kind: Int32Array
}

/** What of a kernel must be covered for it to have run beside collectives; and what may be, for it to have run alone. */
const beside = 0.95
const alone = 0.02
/** So many of a kind must have run alone for its usual time to be known. */
const fewestAlone = 2
/** Kernels beside collectives, and their time, below which nothing is said. */
const fewestBeside = 20
const leastMicroseconds = 500

interface BesideCollectives {
  /** How many times as long kernels took; undefined where too few of them tell. */
  readonly slowdown: number | undefined
  /** Of each piece, microseconds that it ran beside collectives. */
  readonly overlaps: Float64Array
}

export const besideCollectives = (
  { length, start, end, kind }: Pieces,
  collectives: Stretches
): BesideCollectives => {
  const covered = coverage(collectives)
  const overlaps = new Float64Array(length)
  for (let index = 0; index < length; index++) overlaps[index] = covered(start[index]!, end[index]!)
  const kinds = Map.groupBy(overlaps.keys(), (index) => kind[index]!)
  let took = 0
  let usual = 0
  let count = 0
  for (const indices of kinds.values()) {
    const lengthOf = (index: number): number => end[index]! - start[index]!
    const free = indices.filter((index) => overlaps[index]! <= alone * lengthOf(index)).map(lengthOf)
    if (free.length < fewestAlone) continue
    const typical = median(free)
    for (const index of indices) {
      if (!(overlaps[index]! >= beside * lengthOf(index)) || lengthOf(index) === 0) continue
      took += lengthOf(index)
      usual += typical
      count++
    }
  }
  const enough = count >= fewestBeside && took >= leastMicroseconds && usual > 0
  return { slowdown: enough ? Math.max(1, took / usual) : undefined, overlaps }
}

/** Microseconds that a piece would have been shorter without collectives beside it. */
export const lostBeside = (overlap: number, slowdown: number | undefined): number =>
  slowdown === undefined ? 0 : overlap * (1 - 1 / slowdown)
