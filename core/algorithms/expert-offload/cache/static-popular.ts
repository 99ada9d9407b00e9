// A fixed set of experts stays; the others pass through a staging slot.
import type { ExpertId } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/** The `slots` experts with the largest counts; the lower id among equals. */
export const mostPopular = (
  counts: ArrayLike<number>,
  ids: ReadonlyArray<ExpertId>,
  slots: number
): ReadonlySet<ExpertId> => new Set(ids.toSorted((a, b) => counts[b]! - counts[a]! || a - b).slice(0, slots))

/** Keeps the experts of `kept` once they have been loaded, and nothing else. */
export class StaticPopular implements ReplacementPolicy {
  readonly #kept: ReadonlySet<ExpertId>
  readonly #others = new Set<ExpertId>()

  constructor(kept: ReadonlySet<ExpertId>) {
    this.#kept = kept
  }

  hit(): void {}

  replace(incoming: ExpertId, mayLeave: MayLeave): ExpertId | "bypass" | "wait" {
    if (!this.#kept.has(incoming)) return "bypass"
    for (const id of this.#others) if (mayLeave(id)) return id
    return "wait"
  }

  loaded(id: ExpertId): void {
    if (!this.#kept.has(id)) this.#others.add(id)
  }

  evicted(id: ExpertId): void {
    this.#others.delete(id)
  }
}
