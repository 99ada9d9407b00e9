// Least frequently used.
import type { ExpertId } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/**
 * Evicts the resident with the fewest uses; the least recently used among equals. Counts live on when an expert leaves
 * (perfect LFU), as its router knows them anyway.
 */
export class Lfu implements ReplacementPolicy {
  readonly #uses: Float64Array
  readonly #recency = new Set<ExpertId>()

  constructor(ids: number) {
    this.#uses = new Float64Array(ids)
  }

  hit(id: ExpertId): void {
    this.#uses[id]!++
    this.#recency.delete(id)
    this.#recency.add(id)
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    let victim: ExpertId | "wait" = "wait"
    let fewest = Infinity
    for (const id of this.#recency) {
      if (this.#uses[id]! < fewest && mayLeave(id)) {
        victim = id
        fewest = this.#uses[id]!
      }
    }
    return victim
  }

  loaded(id: ExpertId, ahead: boolean): void {
    if (!ahead) this.#uses[id]!++
    this.#recency.add(id)
  }

  evicted(id: ExpertId): void {
    this.#recency.delete(id)
  }
}
