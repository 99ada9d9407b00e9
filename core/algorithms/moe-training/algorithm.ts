// A schedule of MoE training as a value: how its lanes and degrees are chosen, and where gradients go. Knows none of them;
// algorithms.ts lists them.
import { nameOf, type Algorithm, type SettingsSchema } from "../algorithm.ts"
import type { MoeModel } from "./model.ts"
import type { GradientPlan, GradientProblem } from "./plan/gradients.ts"
import type { LaneUse } from "./plan/pipeline.ts"

/** Methods, not properties: one of a list stands where any is wanted, and is asked about its own settings only. */
export interface MoeAlgorithm<S extends SettingsSchema = SettingsSchema> extends Algorithm<S> {
  readonly lanes: LaneUse
  /** Whether each pass has a degree of its own; otherwise both have that with the shortest sum. */
  readonly degreePerPass: boolean
  /** Where each part of the dense gradients is sent. */
  gradients(settings: S["Type"], model: MoeModel, problem: GradientProblem): GradientPlan
  /** Bytes of one message of gradients, where they are cut to a size. */
  messageBytes?(settings: S["Type"]): number
}

/** The value, named as its schema says. */
export const moeAlgorithm = <S extends SettingsSchema>(
  parts: Omit<MoeAlgorithm<S>, "name">
): MoeAlgorithm<S> => ({
  name: nameOf(parts.settings),
  ...parts
})
