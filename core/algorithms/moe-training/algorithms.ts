// Every schedule of MoE training that a scenario can name: FSMoE and the systems it is compared with.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"
import { dtypeBits } from "../../machine/tensor.ts"
import { Bytes } from "../../units.ts"
import { settingsOf } from "../algorithm.ts"
import { moeAlgorithm, type MoeAlgorithm } from "./algorithm.ts"
import {
  allAtEnd,
  besideDense,
  exactPartition,
  fixedChunks,
  greedyPartition,
  wholeElements,
  type GradientPlan,
  type GradientProblem
} from "./plan/gradients.ts"

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

const partition = (
  settings: { readonly partition: "exact" | "greedy" },
  problem: GradientProblem
): GradientPlan =>
  wholeElements(problem, settings.partition === "greedy" ? greedyPartition(problem) : exactPartition(problem))

/** In the order that reports list them. */
export const moeAlgorithms = [
  /** No pipeline; gradients after the backward pass. */
  moeAlgorithm({
    title: "DeepSpeed-MoE",
    settings: Schema.Struct({ name: Schema.Literal("deepspeed-moe") }),
    lanes: "two",
    degreePerPass: true,
    gradients: (_settings, _model, problem) => allAtEnd(problem)
  }),
  /** Tutel with PipeMoE's choice of degree: one lane for communication, gradients after the backward pass. */
  moeAlgorithm({
    title: "Tutel",
    settings: Schema.Struct({ name: Schema.Literal("tutel"), ...pipelined }),
    lanes: "two",
    degreePerPass: false,
    gradients: (_settings, _model, problem) => allAtEnd(problem)
  }),
  /** The same with gradients beside the dense ops of the layer that follows. */
  moeAlgorithm({
    title: "Tutel-Improved",
    settings: Schema.Struct({ name: Schema.Literal("tutel-improved"), ...pipelined }),
    lanes: "two",
    degreePerPass: false,
    gradients: (_settings, _model, problem) => besideDense(problem)
  }),
  /** PipeMoE with Lina's gradient chunks of one size. */
  moeAlgorithm({
    title: "PipeMoE+Lina",
    settings: Schema.Struct({
      name: Schema.Literal("pipemoe-lina"),
      ...pipelined,
      chunkBytes: withDefault(Bytes.check(Schema.isGreaterThan(0)), "30MB")
    }),
    lanes: "two",
    degreePerPass: false,
    gradients: ({ chunkBytes }, { dtype }, problem) =>
      fixedChunks(problem, (chunkBytes * 8) / dtypeBits[dtype]),
    messageBytes: ({ chunkBytes }) => chunkBytes
  }),
  /** FSMoE whose communication inside nodes does not overlap that between them. */
  moeAlgorithm({
    title: "FSMoE-No-IIO",
    settings: Schema.Struct({ name: Schema.Literal("fsmoe-no-iio"), ...partitioned }),
    lanes: "two",
    degreePerPass: true,
    gradients: (settings, _model, problem) => partition(settings, problem)
  }),
  moeAlgorithm({
    title: "FSMoE",
    settings: Schema.Struct({ name: Schema.Literal("fsmoe"), ...partitioned }),
    lanes: "three",
    degreePerPass: true,
    gradients: (settings, _model, problem) => partition(settings, problem)
  })
] as const

/** `algorithm` of a scenario: one schema per algorithm, every field with its default. */
export const MoeTrainingSettings = Schema.Union(settingsOf(moeAlgorithms))
export type MoeTrainingSettings = typeof MoeTrainingSettings.Type

/** Names as a scenario writes them. */
export const moeTrainingNames: ReadonlyArray<MoeTrainingSettings["name"]> = moeAlgorithms.map(
  ({ name }) => name
)

const byName = new Map<string, MoeAlgorithm>(moeAlgorithms.map((one) => [one.name, one]))

export const moeAlgorithmNamed = (name: MoeTrainingSettings["name"]): MoeAlgorithm => byName.get(name)!
