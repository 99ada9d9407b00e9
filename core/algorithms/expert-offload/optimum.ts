// The fewest loads that serve a demand, over all schedules: a lower bound that no policy, predictor or prefetch can beat.
// For experts of one size; with unequal sizes the question is NP-hard and this is no bound.
import { ExpertCache } from "./cache/expert-cache.ts"
import { Furthest, futureOf, type Admission } from "./cache/furthest.ts"
import type { Demand } from "./demand.ts"

/** `shared`: every slot may hold an expert of any layer. `per-layer`: each layer has this many of its own. */
export type SlotScope = "shared" | "per-layer"

/**
 * Fewest loads with `slots` slots (in all, or of each layer).
 *
 * `bypass` (the default): a slot's worth of staging beside them for experts that are used and forgotten. Since staging only
 * adds room, it bounds every schedule that has those slots for everything, prefetching ones included. `forced`: no
 * staging; each load takes a slot from an expert that the call has no more need of, be it one that the call has computed
 * already: every policy may do the same. `pinned`: forced, where what a call needs stays until the call has ended, which is
 * how caches that serve a whole layer at once work; where a call needs more than the slots that cannot be, and it is forced.
 */
export const fewestLoads = (
  demand: Demand,
  slots: number,
  scope: SlotScope,
  admission: Admission = "bypass"
): number => {
  const { shape, calls } = demand
  if (scope === "shared") return fewestOf(demand, slots, admission)
  let loads = 0
  for (let layer = 0; layer < shape.layers; layer++) {
    loads += fewestOf({ shape, calls: calls.filter((call) => call.layer === layer) }, slots, admission)
  }
  return loads
}

const fewestOf = (demand: Demand, slots: number, wanted: Admission): number => {
  const fits = demand.calls.every(({ needed }) => needed.length <= slots)
  const admission = wanted === "pinned" && !fits ? "forced" : wanted
  const cache = new ExpertCache({
    shape: demand.shape,
    pools: [{ slots, policy: new Furthest(futureOf(demand), admission) }],
    stagingSlots: admission === "bypass" ? 1 : 0
  })
  let loads = 0
  const sink = { load: () => void loads++, use: () => {} }
  for (const call of demand.calls) cache.request(call, sink)
  return loads
}
