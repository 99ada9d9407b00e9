// What the `study` section of a scenario file says: axes to sweep, and what to look for.
import * as Schema from "effect/Schema"
import { mostPoints } from "../core/bounds.ts"
import { Bandwidth } from "../core/units.ts"

/** What a study does with a scenario: sweeps axes, and looks for the value of one field that reaches a target. */
export const Study = Schema.Struct({
  /** Field path of the scenario to the values it takes; the product of all axes is run. */
  axes: Schema.Record(Schema.String, Schema.Array(Schema.Unknown).check(Schema.isMinLength(1))),
  /** For every point: the value of `vary` at which `metric` crosses each target. */
  find: Schema.optionalKey(
    Schema.Struct({
      vary: Schema.NonEmptyString,
      /** Values tried, ascending: a list, or logarithmically spaced. */
      over: Schema.Union([
        Schema.Array(Schema.Unknown).check(Schema.isMinLength(2)),
        Schema.Struct({
          from: Bandwidth,
          to: Bandwidth,
          points: Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: mostPoints }))
        })
      ]),
      /** A metric of the task that rises along the values tried, or falls. */
      metric: Schema.NonEmptyString,
      targets: Schema.Array(Schema.Number).check(Schema.isMinLength(1))
    })
  )
})
export type Study = typeof Study.Type
