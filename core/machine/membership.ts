// Who is in a group, and whether it can be one of a world: looked at once for all that are in it, of whom each brings the same list of
// ranks. A list of n that each of n ranks goes through takes n squared.
import type { World } from "../world.ts"

interface Membership {
  readonly has: ReadonlySet<number>
  /** What is wrong with the group, whoever asks, as a phrase. */
  readonly wrong: string | undefined
}

/** By the world's size and the list itself, which is never changed. */
const known = new Map<number, WeakMap<ReadonlyArray<number>, Membership>>()

export const membershipOf = (ranks: ReadonlyArray<number>, { size }: Pick<World, "size">): Membership => {
  let ofSize = known.get(size)
  if (ofSize === undefined) known.set(size, (ofSize = new WeakMap()))
  let found = ofSize.get(ranks)
  if (found === undefined) ofSize.set(ranks, (found = looked(ranks, size)))
  return found
}

const looked = (ranks: ReadonlyArray<number>, size: number): Membership => {
  const has = new Set(ranks)
  if (has.size !== ranks.length) return { has, wrong: "has a rank twice" }
  const outside = ranks.find((member) => !(Number.isInteger(member) && member >= 0 && member < size))
  return { has, wrong: outside === undefined ? undefined : `has rank ${outside}, of a world of ${size}` }
}
