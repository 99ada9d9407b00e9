// Makes what a scenario's algorithm names: a cache with its replacement policies, and a prefetcher where there is one. The
// result is pure bookkeeping, used alike by the trace-driven counter and by the program on a machine.
import type { StrategyFacts } from "./algorithm.ts"
import { offloadAlgorithmNamed, type ExpertOffloadSettings } from "./algorithms.ts"
import { ExpertCache, type CacheSink } from "./cache/expert-cache.ts"
import type { LayerCall } from "./demand.ts"
import type { SlotScope } from "./optimum.ts"

/** Serves the calls of one run, in order. */
export interface Strategy {
  readonly cache: ExpertCache
  begin(step: number, sink: CacheSink): void
  serve(call: LayerCall, sink: CacheSink): void
}

/** Whether an algorithm needs staging slots: it lets experts pass through without keeping them. */
export const usesStaging = (settings: ExpertOffloadSettings): boolean =>
  offloadAlgorithmNamed(settings.name).staging?.(settings) ?? false

/** The scope of an algorithm's slots where it has one of its own, whatever the scenario's cache section says. */
export const fixedScope = (settings: ExpertOffloadSettings): SlotScope | undefined =>
  offloadAlgorithmNamed(settings.name).scope?.(settings)

/** A strategy with an empty cache, of an algorithm's settings. */
export const makeStrategy = (settings: ExpertOffloadSettings, facts: StrategyFacts): Strategy => {
  const { slots } = facts
  const { shape } = facts.demand
  const algorithm = offloadAlgorithmNamed(settings.name)
  const { policyOf, prefetcher } = algorithm.parts(settings, facts)
  const all = Array.from({ length: shape.layers }, (_, layer) => layer)
  const cache = new ExpertCache({
    shape,
    pools:
      (fixedScope(settings) ?? facts.scope) === "shared"
        ? [{ slots, policy: policyOf(slots, all) }]
        : all.map((layer) => ({ slots, policy: policyOf(slots, [layer]) })),
    stagingSlots: usesStaging(settings) ? facts.stagingSlots : 0,
    retain: algorithm.retains
  })
  return {
    cache,
    begin: (step, sink) => prefetcher?.begin?.(step, cache, sink),
    serve: (call, sink) => {
      cache.request(call, sink)
      prefetcher?.after(call, cache, sink)
    }
  }
}
