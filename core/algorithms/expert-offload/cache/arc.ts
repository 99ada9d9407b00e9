// Adaptive replacement (Megiddo and Modha, FAST 2003), with residents that may not leave passed over.
import type { ExpertId } from "../demand.ts"
import { firstOf, type MayLeave, type ReplacementPolicy } from "./policy.ts"

const oldest = (ids: Iterable<ExpertId>): ExpertId | undefined => {
  for (const id of ids) return id
  return undefined
}

/** What the lists say of an expert that comes in, before any leaves for it. */
interface Adapted {
  readonly id: ExpertId
  /** The list of ghosts that remembers it. */
  readonly remembered: "recent" | "frequent" | undefined
  readonly target: number
}

/**
 * T1 holds residents used once, T2 those used again; B1 and B2 remember who left them. A load of a remembered expert moves
 * the target size of T1 towards the list that would have kept it. A prefetched expert enters T1 when it is loaded, and T2
 * at its second use.
 */
export class Arc implements ReplacementPolicy {
  readonly #slots: number
  readonly #recent = new Set<ExpertId>()
  readonly #frequent = new Set<ExpertId>()
  readonly #recentGhosts = new Set<ExpertId>()
  readonly #frequentGhosts = new Set<ExpertId>()
  readonly #ahead = new Set<ExpertId>()
  /** The paper's p. */
  #target = 0
  /** Of the expert that asked for a slot last: what its load makes of the target. Asking again, or in vain, moves nothing. */
  #asked: Adapted | undefined

  constructor(slots: number) {
    this.#slots = slots
  }

  hit(id: ExpertId): void {
    if (this.#ahead.delete(id)) {
      this.#recent.delete(id)
      this.#recent.add(id)
      return
    }
    this.#recent.delete(id)
    this.#frequent.delete(id)
    this.#frequent.add(id)
  }

  replace(incoming: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    this.#asked = this.#adapted(incoming)
    const { remembered, target } = this.#asked
    const fromRecent =
      this.#recent.size > 0 &&
      (this.#recent.size > target ||
        (remembered === "frequent" && this.#recent.size === target) ||
        // A full T1 without ghosts gives up its oldest, whatever the target.
        (remembered === undefined && this.#recent.size === this.#slots))
    const [first, second] = fromRecent ? [this.#recent, this.#frequent] : [this.#frequent, this.#recent]
    const victim = firstOf(first, mayLeave)
    return victim === "wait" ? firstOf(second, mayLeave) : victim
  }

  loaded(id: ExpertId, ahead: boolean): void {
    const { remembered, target } = this.#asked?.id === id ? this.#asked : this.#adapted(id)
    this.#asked = undefined
    this.#target = target
    this.#recentGhosts.delete(id)
    this.#frequentGhosts.delete(id)
    if (remembered === undefined) this.#recent.add(id)
    else this.#frequent.add(id)
    if (ahead && remembered === undefined) this.#ahead.add(id)
    this.#trim()
  }

  evicted(id: ExpertId): void {
    this.#ahead.delete(id)
    if (this.#recent.delete(id)) this.#recentGhosts.add(id)
    else if (this.#frequent.delete(id)) this.#frequentGhosts.add(id)
  }

  /** Fig. 4 of the paper, cases II and III: p moves once for a request that finds its page among the ghosts. */
  #adapted(id: ExpertId): Adapted {
    const [b1, b2] = [this.#recentGhosts.size, this.#frequentGhosts.size]
    if (this.#recentGhosts.has(id)) {
      const target = Math.min(this.#slots, this.#target + Math.max(1, b2 / b1))
      return { id, remembered: "recent", target }
    }
    if (this.#frequentGhosts.has(id)) {
      const target = Math.max(0, this.#target - Math.max(1, b1 / b2))
      return { id, remembered: "frequent", target }
    }
    return { id, remembered: undefined, target: this.#target }
  }

  /** T1 and B1 together remember at most `slots`, all four lists at most twice that. */
  #trim(): void {
    while (this.#recent.size + this.#recentGhosts.size > this.#slots) {
      const ghost = oldest(this.#recentGhosts)
      if (ghost === undefined) break
      this.#recentGhosts.delete(ghost)
    }
    const all = () =>
      this.#recent.size + this.#frequent.size + this.#recentGhosts.size + this.#frequentGhosts.size
    while (all() > 2 * this.#slots) {
      const ghost = oldest(this.#frequentGhosts)
      if (ghost === undefined) break
      this.#frequentGhosts.delete(ghost)
    }
  }
}
