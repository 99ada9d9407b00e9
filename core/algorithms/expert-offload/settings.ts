// What a scenario may say about how experts are kept and fetched: one schema per algorithm, every field with its default.
// How a strategy is made of them is strategy.ts's business.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"

const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))

/** Predicts with a stated quality, from the routing itself. */
export const OraclePredictor = Schema.Struct({
  name: Schema.Literal("oracle"),
  recall: withDefault(Share, 0.9),
  falsePositiveRate: withDefault(Share, 0.05)
})

export const PreviousTokenPredictor = Schema.Struct({ name: Schema.Literal("previous-token") })
export const PreviousLayerPredictor = Schema.Struct({ name: Schema.Literal("previous-layer") })

/** The small trained predictor. */
export const TrainedPredictor = Schema.Struct({
  name: Schema.Literal("trained"),
  /** A file of weights; default: those that ship. */
  weights: Schema.optionalKey(Schema.NonEmptyString),
  /** How many experts are predicted, as a multiple of what the layer needed on average so far. */
  breadth: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 0.1, maximum: 10 })), 1)
})

export const PredictorSettings = Schema.Union([
  OraclePredictor,
  PreviousTokenPredictor,
  PreviousLayerPredictor,
  TrainedPredictor
])
export type PredictorSettings = typeof PredictorSettings.Type

const plain = <const Name extends string>(name: Name) => Schema.Struct({ name: Schema.Literal(name) })

const window = {
  /** Prefetches submitted at once, after a layer's own loads; default: as many as a layer's compute time hides, at least 1. */
  window: Schema.optionalKey(Positive)
}

/** Every layer call loads all it needs; nothing is kept. */
export const OnDemand = plain("on-demand")
export const LeastRecentlyUsed = plain("lru")
export const LeastFrequentlyUsed = plain("lfu")
export const AdaptiveReplacement = plain("arc")
export const S3FifoCache = plain("s3-fifo")
export const SieveCache = plain("sieve")
/** The experts that the whole routing uses most stay: the best fixed set, known with hindsight. */
export const StaticPopularCache = plain("static-popular")

/** LRU, and a prefetch of what the same layer needed in the step before. */
export const PreviousToken = Schema.Struct({
  name: Schema.Literal("previous-token"),
  /** Layer calls that the prefetch looks ahead. */
  reach: withDefault(Positive, 1),
  ...window
})

/** LRU, and a prefetch of the experts with the numbers that the layer before just needed. */
export const PreviousLayer = Schema.Struct({ name: Schema.Literal("previous-layer"), ...window })

/** Pre-gating: LRU, and a prefetch of what the next layer is predicted to need; with a perfect oracle, Pre-gated MoE. */
export const PredictNext = Schema.Struct({
  name: Schema.Literal("predict-next"),
  reach: withDefault(Positive, 1),
  predictor: withDefault(PredictorSettings, { name: "oracle", recall: 1, falsePositiveRate: 0 }),
  ...window
})

/** Streams all experts of the next layers round a ring of slots, as SE-MoE; by default as many at once as a layer has. */
export const LayerRing = Schema.Struct({ name: Schema.Literal("layer-ring"), ...window })

/** Evicts by past use weighted by distance, prefetches what the most similar step so far used. */
export const MoeInfinity = Schema.Struct({ name: Schema.Literal("moe-infinity"), ...window })

export const ExpertFlow = Schema.Struct({
  name: Schema.Literal("expertflow"),
  /** `cross-layer`: slots follow the predicted demand, as in the paper. `fixed-quota`: each layer keeps its own, as in the released code. */
  slots: withDefault(Schema.Literals(["cross-layer", "fixed-quota"]), "cross-layer"),
  predictor: withDefault(PredictorSettings, { name: "oracle" }),
  ...window
})

/** Loads on demand and evicts with knowledge of the future: the fewest loads there can be. */
export const Optimum = Schema.Struct({
  name: Schema.Literal("optimum"),
  admission: withDefault(Schema.Literals(["bypass", "forced"]), "bypass")
})

export const ExpertOffloadSettings = Schema.Union([
  OnDemand,
  LeastRecentlyUsed,
  LeastFrequentlyUsed,
  AdaptiveReplacement,
  S3FifoCache,
  SieveCache,
  StaticPopularCache,
  PreviousToken,
  PreviousLayer,
  PredictNext,
  LayerRing,
  MoeInfinity,
  ExpertFlow,
  Optimum
])
export type ExpertOffloadSettings = typeof ExpertOffloadSettings.Type

/** Names as a scenario writes them, in the order reports list them. */
export const expertOffloadNames = [
  "on-demand",
  "lru",
  "lfu",
  "arc",
  "s3-fifo",
  "sieve",
  "static-popular",
  "previous-token",
  "previous-layer",
  "predict-next",
  "layer-ring",
  "moe-infinity",
  "expertflow",
  "optimum"
] as const
