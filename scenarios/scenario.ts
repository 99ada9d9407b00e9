// What a scenario file says: its task, and the fields that the task's schema has. Both the simulator and the executor read
// it. A study file is a scenario with a `study` section.
import * as Schema from "effect/Schema"
import { DataParallelScenario } from "./families/data-parallel/scenario.ts"
import { KvServingScenario } from "./families/kv-serving/scenario.ts"
import { ExpertOffloadScenario } from "./families/expert-offload/scenario.ts"
import { MoeTrainingScenario } from "./families/moe-training/scenario.ts"
import { Positive } from "../core/fields.ts"
import { Bandwidth } from "../core/units.ts"

/** The tasks that scenarios can be of, each with the schema of its scenarios. */
export const scenarioSchemas = {
  "data-parallel": DataParallelScenario,
  "kv-serving": KvServingScenario,
  "expert-offload": ExpertOffloadScenario,
  "moe-training": MoeTrainingScenario
} as const

export type Task = keyof typeof scenarioSchemas
export const defaultTask: Task = "data-parallel"

export type Scenario = (typeof scenarioSchemas)[Task]["Type"]

/** Whether a text names a task. */
export const isTask = (name: string): name is Task => Object.hasOwn(scenarioSchemas, name)

/** What a study does with a scenario: sweeps axes, and looks for the value of one field that reaches a target. */
export const Study = Schema.Struct({
  /** Field path of the scenario to the values it takes; the product of all axes is run. */
  axes: Schema.Record(Schema.String, Schema.Array(Schema.Unknown).check(Schema.isMinLength(1))),
  /** For every point: the value of `vary` at which `metric` is nearest to, but not above, each target. */
  find: Schema.optionalKey(
    Schema.Struct({
      vary: Schema.NonEmptyString,
      /** Values tried, ascending: a list, or logarithmically spaced. */
      over: Schema.Union([
        Schema.Array(Schema.Unknown).check(Schema.isMinLength(2)),
        Schema.Struct({ from: Bandwidth, to: Bandwidth, points: Positive })
      ]),
      /** A metric of the task that rises along the values tried. */
      metric: Schema.NonEmptyString,
      targets: Schema.Array(Schema.Number).check(Schema.isMinLength(1))
    })
  )
})
export type Study = typeof Study.Type
