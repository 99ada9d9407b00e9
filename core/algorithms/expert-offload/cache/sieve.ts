// SIEVE (Zhang et al., NSDI 2024), with residents that may not leave passed over.
import type { ExpertId } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/**
 * A queue in order of arrival and a hand that moves from the oldest to the newest: it takes the mark off whoever was used
 * since it last came by, and evicts the first without one. Nobody is moved.
 */
export class Sieve implements ReplacementPolicy {
  // Oldest first.
  readonly #queue: Array<ExpertId> = []
  readonly #visited = new Set<ExpertId>()
  #hand = 0

  hit(id: ExpertId): void {
    this.#visited.add(id)
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    const queue = this.#queue
    // Two rounds: one to take marks off, one to find somebody.
    for (let moved = 0; moved < 2 * queue.length; moved++) {
      if (this.#hand >= queue.length) this.#hand = 0
      const id = queue[this.#hand]!
      if (!mayLeave(id)) this.#hand++
      else if (this.#visited.delete(id)) this.#hand++
      else return id
    }
    return "wait"
  }

  loaded(id: ExpertId): void {
    this.#queue.push(id)
  }

  evicted(id: ExpertId): void {
    const at = this.#queue.indexOf(id)
    this.#queue.splice(at, 1)
    if (at < this.#hand) this.#hand--
    // Past the newest it goes back to the oldest, before another arrives.
    if (this.#hand >= this.#queue.length) this.#hand = 0
    this.#visited.delete(id)
  }
}
