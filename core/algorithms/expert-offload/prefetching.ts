// Strategies that fetch experts before they are asked for, by what came before or by a prediction.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"
import { arbitrary, said } from "../algorithm.ts"
import { offloadAlgorithm } from "./algorithm.ts"
import type { ExpertShape } from "./demand.ts"
import { ActivationMatrices, LowestScore } from "./cache/activation-matrix.ts"
import { Lru } from "./cache/lru.ts"
import { FixedQuota, Outlook, PredictedUse } from "./cache/predicted-use.ts"
import { LayersAhead, SimilarStep, WholeStep, WithinQuota } from "./prefetcher.ts"
import { drawnPredictor, makePredictor, predictorOf, PredictorSettings } from "./predictor/predictors.ts"
import { Everything, PreviousLayer, PreviousToken } from "./predictor/simple.ts"

const Positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))

const window = {
  /** Prefetches submitted at once, after a layer's own loads; default: as many as a layer's compute time hides, at least 1. */
  window: Schema.optionalKey(Positive)
}

const drawnWindow = { window: [undefined, 1, 2, 3, 4] } as const
const drawnReach = { reach: { from: 1, to: 4 } } as const

const lru = () => new Lru()

/** LRU, and a prefetch of what the same layer needed in the step before. */
export const previousToken = offloadAlgorithm({
  title: "Previous token",
  settings: Schema.Struct({
    name: Schema.Literal("previous-token"),
    /** Layer calls that the prefetch looks ahead. */
    reach: withDefault(Positive, 1),
    ...window
  }),
  parts: ({ reach, window }, facts) => ({
    policyOf: lru,
    prefetcher: new LayersAhead(new PreviousToken(facts.demand.shape), reach, window ?? facts.window)
  }),
  arbitrary: () =>
    arbitrary({ ...drawnReach, ...drawnWindow }, ({ reach, window }) => ({
      name: "previous-token" as const,
      reach,
      ...said({ window })
    }))
})

/** LRU, and a prefetch of the experts with the numbers that the layer before just needed. */
export const previousLayer = offloadAlgorithm({
  title: "Previous layer",
  settings: Schema.Struct({ name: Schema.Literal("previous-layer"), ...window }),
  parts: ({ window }, facts) => ({
    policyOf: lru,
    prefetcher: new LayersAhead(new PreviousLayer(facts.demand.shape), 1, window ?? facts.window)
  }),
  arbitrary: () => arbitrary(drawnWindow, (drawn) => ({ name: "previous-layer" as const, ...said(drawn) }))
})

/** Pre-gating: LRU, and a prefetch of what the next layer is predicted to need; with a perfect oracle, Pre-gated MoE. */
export const predictNext = offloadAlgorithm({
  title: "Predict next layer",
  settings: Schema.Struct({
    name: Schema.Literal("predict-next"),
    reach: withDefault(Positive, 1),
    predictor: withDefault(PredictorSettings, { name: "oracle", recall: 1, falsePositiveRate: 0 }),
    ...window
  }),
  parts: ({ reach, predictor, window }, facts) => ({
    policyOf: lru,
    prefetcher: new LayersAhead(makePredictor(predictor, facts), reach, window ?? facts.window)
  }),
  arbitrary: () =>
    arbitrary({ ...drawnReach, ...drawnPredictor, ...drawnWindow }, ({ reach, window, ...drawn }) => ({
      name: "predict-next" as const,
      reach,
      predictor: predictorOf(drawn),
      ...said({ window })
    }))
})

const wholeLayer = ({ experts }: ExpertShape): number => experts

/** Streams all experts of the next layers round a ring of slots, as SE-MoE; by default as many at once as a layer has. */
export const layerRing = offloadAlgorithm({
  title: "Layer ring",
  settings: Schema.Struct({ name: Schema.Literal("layer-ring"), ...window }),
  scope: () => "shared",
  usualWindow: wholeLayer,
  parts: ({ window }, { demand: { shape } }) => {
    const outlook = new Outlook(shape)
    return {
      policyOf: () => new PredictedUse(outlook),
      prefetcher: new WholeStep(new Everything(shape), outlook, window ?? wholeLayer(shape))
    }
  },
  arbitrary: () => arbitrary(drawnWindow, (drawn) => ({ name: "layer-ring" as const, ...said(drawn) }))
})

/** Evicts by past use weighted by distance, prefetches what the most similar step so far used. */
export const moeInfinity = offloadAlgorithm({
  title: "MoE-Infinity style",
  settings: Schema.Struct({ name: Schema.Literal("moe-infinity"), ...window }),
  parts: ({ window }, facts) => {
    const matrices = new ActivationMatrices(facts.demand.shape)
    return {
      policyOf: () => new LowestScore(matrices),
      prefetcher: new SimilarStep(matrices, window ?? facts.window)
    }
  },
  arbitrary: () => arbitrary(drawnWindow, (drawn) => ({ name: "moe-infinity" as const, ...said(drawn) }))
})

const Slots = Schema.Literals(["cross-layer", "fixed-quota"])

export const expertFlow = offloadAlgorithm({
  title: "ExpertFlow",
  settings: Schema.Struct({
    name: Schema.Literal("expertflow"),
    /** `cross-layer`: slots follow the predicted demand, as in the paper. `fixed-quota`: each layer keeps its own, as in the released code. */
    slots: withDefault(Slots, "cross-layer"),
    predictor: withDefault(PredictorSettings, { name: "oracle" }),
    ...window
  }),
  scope: ({ slots }) => (slots === "cross-layer" ? "shared" : "per-layer"),
  parts: ({ slots, predictor: named, window }, facts) => {
    const predictor = makePredictor(named, facts)
    const { shape } = facts.demand
    const most = window ?? facts.window
    if (slots === "cross-layer") {
      const outlook = new Outlook(shape)
      return {
        policyOf: () => new PredictedUse(outlook),
        prefetcher: new WholeStep(predictor, outlook, most)
      }
    }
    const quotas = Array.from({ length: shape.layers }, () => new FixedQuota())
    return {
      policyOf: (_, [layer]) => quotas[layer!]!,
      prefetcher: new WithinQuota(predictor, quotas, most)
    }
  },
  arbitrary: () =>
    arbitrary(
      { slots: Slots.literals, ...drawnPredictor, ...drawnWindow },
      ({ slots, window, ...drawn }) => ({
        name: "expertflow" as const,
        slots,
        predictor: predictorOf(drawn),
        ...said({ window })
      })
    )
})
