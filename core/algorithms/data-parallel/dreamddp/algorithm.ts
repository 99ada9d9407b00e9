// DreamDDP: partial local SGD whose sets a planner chooses.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { withDefault } from "../../../fields.ts"
import { arbitrary, said } from "../../algorithm.ts"
import { dataParallelAlgorithm } from "../algorithm.ts"
import { drawnDeadline, drawnOrder, drawnWire, partialFields } from "../fields.ts"
import { lostToClipping, planSets } from "../partial-local-sgd/planned.ts"
import { fillBubbles } from "../plan/dreamddp.ts"
import { planSync } from "../plan/planners.ts"

const Planner = Schema.Literals(["assignment", "contiguous", "published"])

const settings = Schema.Struct({
  name: Schema.Literal("dreamddp"),
  ...partialFields,
  /** `assignment`: any layer in any step; `contiguous`: exact over blocks; `published`: the paper's depth-first search. */
  planner: withDefault(Planner, "assignment"),
  /** Synchronise further layers where the channel would be idle. */
  fillBubbles: withDefault(Schema.Boolean, false)
})

export const dreamDdp = dataParallelAlgorithm({
  title: "DreamDDP",
  settings,
  plan: (own, facts) =>
    Result.succeed(
      planSets(own, facts, (problem) => {
        const planned = planSync(problem, own.planner)
        return own.fillBubbles ? fillBubbles(problem, planned) : planned
      })
    ),
  lostToClipping,
  arbitrary: ({ maxPeriod }) =>
    arbitrary(
      {
        period: { from: 1, to: maxPeriod },
        wire: drawnWire,
        deadline: drawnDeadline,
        order: drawnOrder,
        planner: [undefined, ...Planner.literals],
        fillBubbles: [undefined, true]
      },
      ({ period, ...drawn }) => ({ name: "dreamddp" as const, period, ...said(drawn) })
    )
})
