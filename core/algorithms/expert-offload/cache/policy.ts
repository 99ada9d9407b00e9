// Which expert leaves when another needs its slot. A policy is bookkeeping alone: the trace-driven counter and the program
// on a machine use the same one, through ExpertCache. Knows nothing of tensors, ops or time.
import type { ExpertId, LayerCall } from "../demand.ts"

/** Whether a resident may leave now: experts that the present call still has to compute may not. */
export type MayLeave = (id: ExpertId) => boolean

/**
 * What a policy decides for the expert that comes. `bypass`: use it from a staging slot and forget it.
 * `wait`: none that should leave may leave yet; ask again when the call has computed another expert.
 */
export type Decision = ExpertId | "bypass" | "wait"

/**
 * Decides which expert leaves its slot for another; told of everything that happens in its pool, in order.
 */
export interface ReplacementPolicy {
  /** A layer's needs became known: before any hit, victim or load of the call. */
  called?(call: LayerCall): void
  /** A resident was needed by its layer. */
  hit(id: ExpertId): void
  /** Who makes room for `incoming`, asked only when no slot is free. */
  replace(incoming: ExpertId, mayLeave: MayLeave): Decision
  /** Came into a slot; a slot may have been free. `ahead` of its use, or because its layer needs it. */
  loaded(id: ExpertId, ahead: boolean): void
  /** Left its slot, by this policy's decision or because the cache is emptied. */
  evicted(id: ExpertId): void
  /** The order in which a call's misses are loaded; ascending where absent. */
  order?(misses: ReadonlyArray<ExpertId>): ReadonlyArray<ExpertId>
}

/** The first of the ids that may leave; "wait" where none may. */
export const firstOf = (ids: Iterable<ExpertId>, mayLeave: MayLeave): ExpertId | "wait" => {
  for (const id of ids) if (mayLeave(id)) return id
  return "wait"
}
