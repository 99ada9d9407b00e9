// DiLoCo: H inner steps, then an outer Nesterov step on the averaged change of all layers.
import * as Schema from "effect/Schema"
import { withDefault } from "../../../fields.ts"
import { arbitrary, defaultsOf, said } from "../../algorithm.ts"
import { dataParallelAlgorithm, onlyLearnt } from "../algorithm.ts"
import { DeadlineSetting, drawnDeadline, drawnWire, Period, Share, WireDtype } from "../fields.ts"
import { planDiloco } from "./planned.ts"

const settings = Schema.Struct({
  name: Schema.Literal("diloco"),
  period: withDefault(Period, 100),
  outerLearningRate: withDefault(Schema.Number, 0.7),
  outerMomentum: withDefault(Share, 0.9),
  wire: withDefault(WireDtype, "float32"),
  /** Send each layer as its last backward pass ends instead of after the whole step. */
  overlap: withDefault(Schema.Boolean, false),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
})

export const dilocoAlgorithm = dataParallelAlgorithm({
  title: "DiLoCo",
  settings,
  plan: (own, { profile }) =>
    planDiloco(
      {
        layers: profile.layers.length,
        period: own.period,
        layersPerFragment: profile.layers.length,
        pattern: "sequential",
        offsets: "rounded",
        delaySteps: 0,
        localShare: 0
      },
      own
    ),
  ignored: (own) => onlyLearnt(own, defaultsOf(settings), ["outerLearningRate", "outerMomentum"]),
  lostToClipping: ({ overlap }) => (overlap ? "algorithm.overlap has no effect" : undefined),
  arbitrary: ({ maxPeriod }) =>
    arbitrary(
      {
        period: { from: 1, to: maxPeriod },
        wire: drawnWire,
        deadline: drawnDeadline,
        overlap: [undefined, true]
      },
      ({ period, ...drawn }) => ({ name: "diloco" as const, period, ...said(drawn) })
    )
})
