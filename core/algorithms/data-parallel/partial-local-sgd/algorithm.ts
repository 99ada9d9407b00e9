// Partial local SGD with an equal number of layers in each step of the period.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { arbitrary, said } from "../../algorithm.ts"
import { dataParallelAlgorithm } from "../algorithm.ts"
import { drawnDeadline, drawnOrder, drawnWire, partialFields } from "../fields.ts"
import { planSync } from "../plan/planners.ts"
import { lostToClipping, planSets } from "./planned.ts"

const settings = Schema.Struct({ name: Schema.Literal("partial-local-sgd"), ...partialFields })

export const partialLocalSgdAlgorithm = dataParallelAlgorithm({
  title: "Partial local SGD",
  settings,
  plan: (own, facts) => Result.succeed(planSets(own, facts, (problem) => planSync(problem, "equal-number"))),
  lostToClipping,
  arbitrary: ({ maxPeriod }) =>
    arbitrary(
      { period: { from: 1, to: maxPeriod }, wire: drawnWire, deadline: drawnDeadline, order: drawnOrder },
      ({ period, ...drawn }) => ({ name: "partial-local-sgd" as const, period, ...said(drawn) })
    )
})
