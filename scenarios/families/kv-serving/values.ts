// Random weights and prompts of a serving scenario, from its seed: large enough that what is generated depends on the prompt.
import { weightSpecs } from "../../../core/algorithms/kv-serving/model.ts"
import { servingRole } from "../../../core/algorithms/kv-serving/sequence.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import type { InitialValues } from "../../../core/machine/machine.ts"
import { constant, normal } from "../../../core/models/initial-values.ts"
import { Random, splitSeed } from "../../../core/random.ts"

/** Norms are 1; matrices normal with deviation 2 / sqrt(inputs). Tokens of prompts are drawn evenly from the vocabulary. */
export const servingValues = ({ model }: ServingPlan, seed: number): InitialValues => {
  const names = new Set(weightSpecs(model).map(({ name }) => name))
  return (_, { name, shape, elements, role }) => {
    // Both ranks of a disaggregated pair have the same weights.
    if (names.has(name)) {
      if (shape.length < 2) return [constant(1)]
      return [normal(splitSeed(seed, name), 2 / Math.sqrt(shape[1]!))]
    }
    if (servingRole({ role })?.kind !== "prompt") return undefined
    const random = new Random(splitSeed(seed, name))
    return Int32Array.from({ length: elements }, () => random.below(model.vocabulary))
  }
}
