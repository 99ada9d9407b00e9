// Belady's choice on a demand that is known in advance: whoever is needed furthest in the future leaves. With equal sizes
// and whole layer calls as requests it makes the fewest loads that any schedule can, prefetching included.
import type { Demand, ExpertId, LayerCall } from "../demand.ts"
import type { Decision, MayLeave, ReplacementPolicy } from "./policy.ts"

/** The calls that use each expert, as ascending indices into the demand's calls. */
type Future = ReadonlyArray<ReadonlyArray<number>>

export const futureOf = ({ shape, calls }: Demand): Future => {
  const uses: Array<Array<number>> = Array.from({ length: shape.layers * shape.experts }, () => [])
  calls.forEach(({ needed }, index) => needed.forEach((id) => uses[id]!.push(index)))
  return uses
}

/**
 * `forced`: every expert that is loaded takes a slot of the cache. `bypass`: one that would be needed last of all passes
 * through a staging slot, so that nobody leaves for it. `pinned`: forced, and an expert that the present call needs does not
 * leave before the call has ended; no call may need more experts than there are slots.
 */
export type Admission = "forced" | "bypass" | "pinned"

export class Furthest implements ReplacementPolicy {
  readonly #future: Future
  readonly #admission: Admission
  // How many of an expert's uses have been announced.
  readonly #past: Int32Array
  #needed: ReadonlySet<ExpertId> = new Set()
  readonly #residents = new Set<ExpertId>()

  /** `called` must be told of the demand's calls in order. */
  constructor(future: Future, admission: Admission) {
    this.#future = future
    this.#admission = admission
    this.#past = new Int32Array(future.length)
  }

  called({ needed }: LayerCall): void {
    for (const id of needed) this.#past[id]!++
    if (this.#admission === "pinned") this.#needed = new Set(needed)
  }

  hit(): void {}

  replace(incoming: ExpertId, mayLeave: MayLeave): Decision {
    if (this.#admission === "pinned") return this.#pinned()
    let furthest: ExpertId | undefined
    for (const id of this.#residents) {
      const further = furthest === undefined ? 1 : this.#compare(id, furthest)
      // Among equals one that may leave now.
      if (further > 0 || (further === 0 && mayLeave(id) && !mayLeave(furthest!))) furthest = id
    }
    if (this.#admission === "bypass") {
      if (furthest === undefined || this.#compare(incoming, furthest) >= 0) return "bypass"
    }
    return furthest !== undefined && mayLeave(furthest) ? furthest : "wait"
  }

  /** Belady's choice among those that the call does not need; there is one where the call's experts all have room. */
  #pinned(): Decision {
    const next = (id: ExpertId): number => this.#future[id]![this.#past[id]!] ?? Infinity
    let furthest: ExpertId | undefined
    for (const id of this.#residents) {
      if (!this.#needed.has(id) && (furthest === undefined || next(id) > next(furthest))) furthest = id
    }
    return furthest ?? "wait"
  }

  loaded(id: ExpertId): void {
    this.#residents.add(id)
  }

  evicted(id: ExpertId): void {
    this.#residents.delete(id)
  }

  /** Who should leave first comes first: whoever is loaded last is sure to stay, so that should be the one to keep. */
  order(misses: ReadonlyArray<ExpertId>): ReadonlyArray<ExpertId> {
    return misses.toSorted((a, b) => this.#compare(b, a) || a - b)
  }

  /**
   * Positive when `a` should rather leave than `b`: its next use lies further ahead. When one call needs both, one of them
   * will be loaded for it, and under forced admission a loaded expert stays: so the one that should stay after that call
   * should leave now; and so on, turn about.
   */
  #compare(a: ExpertId, b: ExpertId): number {
    const [usesOfA, usesOfB] = [this.#future[a]!, this.#future[b]!]
    for (let depth = 0; ; depth++) {
      const nextOfA = usesOfA[this.#past[a]! + depth] ?? Infinity
      const nextOfB = usesOfB[this.#past[b]! + depth] ?? Infinity
      if (nextOfA !== nextOfB) return nextOfA > nextOfB === (depth % 2 === 0) ? 1 : -1
      if (nextOfA === Infinity) return 0
    }
  }
}
