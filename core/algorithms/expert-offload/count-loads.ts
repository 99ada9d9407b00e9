// How often a strategy loads on a given demand, without a machine: the quick answer to "what would this policy do?". Whether
// a prefetch is in time only a machine can say; here every prefetch is.
import { Digest } from "../../digest.ts"
import type { CacheSink } from "./cache/expert-cache.ts"
import type { Demand } from "./demand.ts"
import type { Strategy } from "./strategy.ts"

/** What serving a demand comes to, counted over all calls. */
export interface LoadCount {
  /** Needs of an expert by a layer call. */
  readonly needs: number
  /** Needs whose expert was in a slot, or on its way there. */
  readonly hits: number
  /** All copies from the host. */
  readonly loads: number
  /** Those made ahead of their use. */
  readonly prefetches: number
  /** Prefetches whose expert left unused, or was unused at the end. */
  readonly uselessPrefetches: number
}

/**
 * Serves a demand with a strategy without a machine: copies take no time, so whatever is prefetched is
 * there in time.
 */
export const countLoads = (demand: Demand, strategy: Strategy): LoadCount => {
  const { cache } = strategy
  let [needs, hits, loads, prefetches] = [0, 0, 0, 0]
  const sink = {
    load: (_: number, __: number, ___: number | undefined, ahead: boolean) => {
      loads++
      if (ahead) prefetches++
    },
    use: (_: number, __: number, found: "resident" | "missing") => {
      needs++
      if (found === "resident") hits++
    }
  }
  serveAll(demand, strategy, sink)
  return { needs, hits, loads, prefetches, uselessPrefetches: cache.uselessPrefetches() }
}

/** What a strategy has done on a demand. */
interface Served {
  /** Of what was loaded in whose place and used, in order: two strategies that have it alike have done the same. */
  readonly digest: string
  /** Experts that left their slots for others. */
  readonly evictions: number
}

/** Serves a demand with a strategy without a machine: what it decides never depends on time. */
export const servedBy = (demand: Demand, strategy: Strategy): Served => {
  const digest = new Digest()
  let evictions = 0
  digest.number(strategy.cache.slots)
  serveAll(demand, strategy, {
    // Which slot of those that are free is nobody's business, and of others says who left it.
    load: (id, _, evicted, ahead) => {
      if (evicted !== undefined) evictions++
      digest.number(ahead ? 1 : 0)
      digest.number(id)
      digest.number(evicted ?? -1)
    },
    use: (id) => {
      digest.number(2)
      digest.number(id)
    }
  })
  return { digest: digest.hex, evictions }
}

const serveAll = ({ calls }: Demand, strategy: Strategy, sink: CacheSink): void => {
  let step: number | undefined
  for (const call of calls) {
    if (call.step !== step) strategy.begin(call.step, sink)
    step = call.step
    strategy.serve(call, sink)
  }
}
