// Least recently used, and its opposite end as other policies need it.
import type { ExpertId } from "../demand.ts"
import { firstOf, type MayLeave, type ReplacementPolicy } from "./policy.ts"

/** Evicts the resident whose last use, or whose load if it was never used, lies furthest back. */
export class Lru implements ReplacementPolicy {
  // A Set iterates in the order of insertion: least recent first.
  readonly #recency = new Set<ExpertId>()

  hit(id: ExpertId): void {
    this.#recency.delete(id)
    this.#recency.add(id)
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    return firstOf(this.#recency, mayLeave)
  }

  loaded(id: ExpertId): void {
    this.#recency.add(id)
  }

  evicted(id: ExpertId): void {
    this.#recency.delete(id)
  }

  /** Residents, least recently used first. */
  get residents(): Iterable<ExpertId> {
    return this.#recency
  }
}
