// What a scenario may say about an algorithm of MoE training: FSMoE and the systems it is compared with.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"
import { Bytes } from "../../units.ts"

const Degree = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 64 }))

const pipelined = {
  /** Pipeline degrees to choose from. */
  degrees: withDefault(Schema.Array(Degree).check(Schema.isMinLength(1)), [1, 2, 4, 8]),
  /** Instead of a choice, for every layer. */
  forwardDegree: Schema.optionalKey(Degree),
  backwardDegree: Schema.optionalKey(Degree),
  /**
   * What tells how long a degree takes. `cases`: FSMoE's four formulas (where communication has one lane, for which there are
   * none, `lanes`); `lanes`: the lanes run through chunk by chunk; `simulation`: a simulation of the layer for each degree.
   */
  planner: withDefault(Schema.Literals(["cases", "lanes", "simulation"]), "cases")
}

const partitioned = {
  ...pipelined,
  /** `greedy`: the paper's first step. `exact`: the best over equal pieces. */
  partition: withDefault(Schema.Literals(["exact", "greedy"]), "exact")
}

/** No pipeline; gradients after the backward pass. */
export const DeepSpeedMoe = Schema.Struct({ name: Schema.Literal("deepspeed-moe") })
/** Tutel with PipeMoE's choice of degree: one lane for communication, gradients after the backward pass. */
export const Tutel = Schema.Struct({ name: Schema.Literal("tutel"), ...pipelined })
/** The same with gradients beside the dense ops of the layer that follows. */
export const TutelImproved = Schema.Struct({ name: Schema.Literal("tutel-improved"), ...pipelined })
/** PipeMoE with Lina's gradient chunks of one size. */
export const PipeMoeLina = Schema.Struct({
  name: Schema.Literal("pipemoe-lina"),
  ...pipelined,
  chunkBytes: withDefault(Bytes.check(Schema.isGreaterThan(0)), "30MB")
})
/** FSMoE whose communication inside nodes does not overlap that between them. */
export const FsMoeNoIio = Schema.Struct({ name: Schema.Literal("fsmoe-no-iio"), ...partitioned })
/** FSMoE. */
export const FsMoe = Schema.Struct({ name: Schema.Literal("fsmoe"), ...partitioned })

export const MoeTrainingSettings = Schema.Union([
  DeepSpeedMoe,
  Tutel,
  TutelImproved,
  PipeMoeLina,
  FsMoeNoIio,
  FsMoe
])
export type MoeTrainingSettings = typeof MoeTrainingSettings.Type

/** Names as a scenario writes them, in the order reports list them. */
export const moeTrainingNames = [
  "deepspeed-moe",
  "tutel",
  "tutel-improved",
  "pipemoe-lina",
  "fsmoe-no-iio",
  "fsmoe"
] as const
