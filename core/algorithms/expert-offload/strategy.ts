// Makes what a scenario's algorithm names: a cache with its replacement policies, and a prefetcher where there is one. The
// result is pure bookkeeping, used alike by the trace-driven counter and by the program on a machine.
import type { Random } from "../../random.ts"
import { ActivationMatrices, LowestScore } from "./cache/activation-matrix.ts"
import { Arc } from "./cache/arc.ts"
import { ExpertCache, type CacheSink } from "./cache/expert-cache.ts"
import { Furthest, futureOf } from "./cache/furthest.ts"
import { Lfu } from "./cache/lfu.ts"
import { Lru } from "./cache/lru.ts"
import type { ReplacementPolicy } from "./cache/policy.ts"
import { FixedQuota, Outlook, PredictedUse } from "./cache/predicted-use.ts"
import { S3Fifo } from "./cache/s3-fifo.ts"
import { Sieve } from "./cache/sieve.ts"
import { mostPopular, StaticPopular } from "./cache/static-popular.ts"
import { usesOf, type Demand, type LayerCall } from "./demand.ts"
import type { SlotScope } from "./optimum.ts"
import { LayersAhead, SimilarStep, WholeStep, WithinQuota, type Prefetcher } from "./prefetcher.ts"
import { Oracle } from "./predictor/oracle.ts"
import type { Predictor } from "./predictor/predictor.ts"
import { Everything, PreviousLayer, PreviousToken } from "./predictor/simple.ts"
import { Trained, type PredictorWeights } from "./predictor/trained.ts"
import type { ExpertOffloadSettings, PredictorSettings } from "./settings.ts"

export interface StrategyFacts {
  /** The whole demand: what oracles, the optimum and the static set know of the future. Others look at its shape only. */
  readonly demand: Demand
  /** Slots in all, or of each layer. */
  readonly slots: number
  readonly scope: SlotScope
  /** Slots beside those, for policies that let experts pass through. */
  readonly stagingSlots: number
  /** Prefetches submitted at once where the settings do not say. */
  readonly window: number
  readonly weights: PredictorWeights
  readonly random: Random
}

/** Serves the calls of one run, in order. */
export interface Strategy {
  readonly cache: ExpertCache
  begin(step: number, sink: CacheSink): void
  serve(call: LayerCall, sink: CacheSink): void
}

/** Whether an algorithm needs staging slots: it lets experts pass through without keeping them. */
export const usesStaging = (settings: ExpertOffloadSettings): boolean =>
  settings.name === "static-popular" || (settings.name === "optimum" && settings.admission === "bypass")

/** Algorithms whose slots have a scope of their own, whatever the scenario's cache section says. */
export const fixedScope = (settings: ExpertOffloadSettings): SlotScope | undefined => {
  if (settings.name === "layer-ring") return "shared"
  if (settings.name === "expertflow") return settings.slots === "cross-layer" ? "shared" : "per-layer"
  return undefined
}

/** The policy of one pool: `slots` of it, for the experts of `layers`. */
type PolicyOf = (slots: number, layers: ReadonlyArray<number>) => ReplacementPolicy

export const makeStrategy = (settings: ExpertOffloadSettings, facts: StrategyFacts): Strategy => {
  const { demand, slots } = facts
  const { shape } = demand
  const ids = shape.layers * shape.experts
  const all = Array.from({ length: shape.layers }, (_, layer) => layer)
  const build = (scope: SlotScope, policyOf: PolicyOf, prefetcher?: Prefetcher, retain = true): Strategy => {
    const cache = new ExpertCache({
      shape,
      pools:
        scope === "shared"
          ? [{ slots, policy: policyOf(slots, all) }]
          : all.map((layer) => ({ slots, policy: policyOf(slots, [layer]) })),
      stagingSlots: usesStaging(settings) ? facts.stagingSlots : 0,
      retain
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
  const window = ("window" in settings ? settings.window : undefined) ?? facts.window
  const lru = () => new Lru()
  const scope = fixedScope(settings) ?? facts.scope
  switch (settings.name) {
    case "on-demand":
      return build(scope, lru, undefined, false)
    case "lru":
      return build(scope, lru)
    case "lfu":
      return build(scope, () => new Lfu(ids))
    case "arc":
      return build(scope, (count) => new Arc(count))
    case "s3-fifo":
      return build(scope, (count) => new S3Fifo(count))
    case "sieve":
      return build(scope, () => new Sieve())
    case "static-popular": {
      const uses = usesOf(demand)
      return build(scope, (count, layers) => {
        const own = layers.flatMap((layer) =>
          Array.from({ length: shape.experts }, (_, expert) => layer * shape.experts + expert)
        )
        return new StaticPopular(mostPopular(uses, own, count))
      })
    }
    case "previous-token":
      return build(scope, lru, new LayersAhead(new PreviousToken(shape), settings.reach, window))
    case "previous-layer":
      return build(scope, lru, new LayersAhead(new PreviousLayer(shape), 1, window))
    case "predict-next": {
      const predictor = makePredictor(settings.predictor, facts)
      return build(scope, lru, new LayersAhead(predictor, settings.reach, window))
    }
    case "layer-ring": {
      const outlook = new Outlook(shape)
      const prefetcher = new WholeStep(new Everything(shape), outlook, settings.window ?? shape.experts)
      return build(scope, () => new PredictedUse(outlook), prefetcher)
    }
    case "moe-infinity": {
      const matrices = new ActivationMatrices(shape)
      return build(scope, () => new LowestScore(matrices), new SimilarStep(matrices, window))
    }
    case "expertflow": {
      const predictor = makePredictor(settings.predictor, facts)
      if (settings.slots === "cross-layer") {
        const outlook = new Outlook(shape)
        return build(scope, () => new PredictedUse(outlook), new WholeStep(predictor, outlook, window))
      }
      const quotas = all.map(() => new FixedQuota())
      return build(scope, (_, [layer]) => quotas[layer!]!, new WithinQuota(predictor, quotas, window))
    }
    case "optimum": {
      const part = (layers: ReadonlyArray<number>) =>
        layers.length === shape.layers
          ? demand
          : { shape, calls: demand.calls.filter(({ layer }) => layers.includes(layer)) }
      return build(scope, (_, layers) => new Furthest(futureOf(part(layers)), settings.admission))
    }
  }
}

export const makePredictor = (settings: PredictorSettings, facts: StrategyFacts): Predictor => {
  const { demand, weights, random } = facts
  switch (settings.name) {
    case "oracle":
      return new Oracle(demand, settings, random.split("oracle"))
    case "previous-token":
      return new PreviousToken(demand.shape)
    case "previous-layer":
      return new PreviousLayer(demand.shape)
    case "trained":
      return new Trained(demand.shape, weights, settings.breadth)
  }
}
