// Fields that settings of several data-parallel algorithms have, and what a test draws for them.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"

/** A schedule has an entry for each of its steps. */
export const Period = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }))
/** Dtype of messages on the wire. */
export const WireDtype = Schema.Literals(["float32", "bfloat16", "float16", "float8", "float4", "int8"])
export const DeadlineSetting = Schema.Literals(["end-of-backward", "next-use"])
const UpdateOrderSetting = Schema.Literals(["average-then-step", "step-then-average"])
export const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

/** Ranks train on their own and average every layer once in a period. */
export const localSgdFields = { period: withDefault(Period, 10), wire: withDefault(WireDtype, "float32") }

/** The same, a few layers in each step. */
export const partialFields = {
  ...localSgdFields,
  order: withDefault(UpdateOrderSetting, "average-then-step"),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
}

/** An optional field half of the time left to its default. */
const orDefault = <const V extends string>(values: ReadonlyArray<V>) => [undefined, ...values] as const

export const drawnWire = orDefault(WireDtype.literals)
export const drawnDeadline = orDefault(DeadlineSetting.literals)
export const drawnOrder = orDefault(UpdateOrderSetting.literals)
