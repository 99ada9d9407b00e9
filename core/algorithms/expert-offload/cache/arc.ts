// Adaptive replacement (Megiddo and Modha, FAST 2003), with residents that may not leave passed over.
import type { ExpertId } from "../demand.ts"
import { firstOf, type MayLeave, type ReplacementPolicy } from "./policy.ts"

const oldest = (ids: Iterable<ExpertId>): ExpertId | undefined => {
  for (const id of ids) return id
  return undefined
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
  // Which list the expert that is coming in was remembered by, told at `replace` or `loaded`, whichever is first.
  #adaptedFor: ExpertId | undefined
  #remembered: "recent" | "frequent" | undefined

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
    this.#adapt(incoming)
    const fromRecent =
      this.#recent.size > 0 &&
      (this.#recent.size > this.#target ||
        (this.#remembered === "frequent" && this.#recent.size === this.#target) ||
        // A full T1 without ghosts gives up its oldest, whatever the target.
        (this.#remembered === undefined && this.#recent.size === this.#slots))
    const [first, second] = fromRecent ? [this.#recent, this.#frequent] : [this.#frequent, this.#recent]
    const victim = firstOf(first, mayLeave)
    return victim === "wait" ? firstOf(second, mayLeave) : victim
  }

  loaded(id: ExpertId, ahead: boolean): void {
    this.#adapt(id)
    this.#recentGhosts.delete(id)
    this.#frequentGhosts.delete(id)
    if (this.#remembered === undefined) this.#recent.add(id)
    else this.#frequent.add(id)
    if (ahead && this.#remembered === undefined) this.#ahead.add(id)
    this.#adaptedFor = undefined
    this.#trim()
  }

  evicted(id: ExpertId): void {
    this.#ahead.delete(id)
    if (this.#recent.delete(id)) this.#recentGhosts.add(id)
    else if (this.#frequent.delete(id)) this.#frequentGhosts.add(id)
  }

  #adapt(incoming: ExpertId): void {
    if (this.#adaptedFor === incoming) return
    this.#adaptedFor = incoming
    const [b1, b2] = [this.#recentGhosts.size, this.#frequentGhosts.size]
    if (this.#recentGhosts.has(incoming)) {
      this.#remembered = "recent"
      this.#target = Math.min(this.#slots, this.#target + Math.max(1, b2 / b1))
    } else if (this.#frequentGhosts.has(incoming)) {
      this.#remembered = "frequent"
      this.#target = Math.max(0, this.#target - Math.max(1, b1 / b2))
    } else this.#remembered = undefined
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
