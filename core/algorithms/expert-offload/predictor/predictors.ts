// The predictors of experts that a scenario can name, each with its settings, and how one is made.
import * as Schema from "effect/Schema"
import { withDefault } from "../../../fields.ts"
import { defaultsOf, nameOf, settingsOf, type Algorithm, type SettingsSchema } from "../../algorithm.ts"
import type { StrategyFacts } from "../algorithm.ts"
import { Oracle } from "./oracle.ts"
import type { Predictor } from "./predictor.ts"
import { PreviousLayer, PreviousToken } from "./simple.ts"
import { Trained } from "./trained.ts"

/** Methods, not properties: one of a list stands where any is wanted, and is asked about its own settings only. */
interface NamedPredictor<S extends SettingsSchema = SettingsSchema> extends Algorithm<S> {
  make(settings: S["Type"], facts: StrategyFacts): Predictor
}

const predictor = <S extends SettingsSchema>(parts: Omit<NamedPredictor<S>, "name">): NamedPredictor<S> => ({
  name: nameOf(parts.settings),
  ...parts
})

const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

const predictors = [
  predictor({
    title: "with a stated quality, from the routing itself",
    settings: Schema.Struct({
      name: Schema.Literal("oracle"),
      recall: withDefault(Share, 0.9),
      falsePositiveRate: withDefault(Share, 0.05)
    }),
    make: (settings, { demand, random }) => new Oracle(demand, settings, random.split("oracle"))
  }),
  predictor({
    title: "what the same layer needed in the step before",
    settings: Schema.Struct({ name: Schema.Literal("previous-token") }),
    make: (_, { demand }) => new PreviousToken(demand.shape)
  }),
  predictor({
    title: "the numbers that the layer before needed",
    settings: Schema.Struct({ name: Schema.Literal("previous-layer") }),
    make: (_, { demand }) => new PreviousLayer(demand.shape)
  }),
  predictor({
    title: "the small trained predictor",
    settings: Schema.Struct({
      name: Schema.Literal("trained"),
      /** A file of weights; default: those that ship. */
      weights: Schema.optionalKey(Schema.NonEmptyString),
      /** How many experts are predicted, as a multiple of what the layer needed on average so far. */
      breadth: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 0.1, maximum: 10 })), 1)
    }),
    make: ({ breadth }, { demand, weights }) => new Trained(demand.shape, weights, breadth)
  })
] as const

export const PredictorSettings = Schema.Union(settingsOf(predictors))
export type PredictorSettings = typeof PredictorSettings.Type

const byName = new Map<string, NamedPredictor>(predictors.map((one) => [one.name, one]))

/** What a scenario that names only the predictor says of it. */
export const predictorDefaults = ({ name }: PredictorSettings): PredictorSettings =>
  defaultsOf(byName.get(name)!.settings) as PredictorSettings

export const makePredictor = (settings: PredictorSettings, facts: StrategyFacts): Predictor =>
  byName.get(settings.name)!.make(settings, facts)

/** What a test draws to name a predictor, and the settings that it comes to. */
export const drawnPredictor = {
  predictor: predictors.map(({ name }) => name),
  recall: [1, 0.9, 0.5, 0],
  falsePositiveRate: [0, 0.1, 1]
} as const

export const predictorOf = ({
  predictor: name,
  recall,
  falsePositiveRate
}: {
  readonly predictor: PredictorSettings["name"]
  readonly recall: number
  readonly falsePositiveRate: number
}): typeof PredictorSettings.Encoded => (name === "oracle" ? { name, recall, falsePositiveRate } : { name })
