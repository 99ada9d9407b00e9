// Random weights and prompts of a serving scenario, from its seed: large enough that what is generated depends on the prompt.
import { weightSpecs } from "../../../core/algorithms/kv-serving/model.ts"
import { servingRole } from "../../../core/algorithms/kv-serving/sequence.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import type { Tensor } from "../../../core/machine/tensor.ts"
import { Random } from "../../../core/random.ts"
import type { InitialValues } from "../../../core/machine/machine.ts"

/** Norms are 1; matrices normal with deviation 2 / sqrt(inputs). Tokens of prompts are drawn evenly from the vocabulary. */
export const servingValues = ({ model }: ServingPlan, seed: number): InitialValues => {
  const random = new Random(seed)
  const names = new Set(weightSpecs(model).map(({ name }) => name))
  const weights = new Map<string, Float32Array>()
  const weightOf = ({ name, shape, elements }: Tensor): Float32Array => {
    // Both ranks of a disaggregated pair have the same weights.
    let values = weights.get(name)
    if (values === undefined) {
      values = new Float32Array(elements)
      if (shape.length < 2) values.fill(1)
      else {
        const own = random.split(name)
        const deviation = 2 / Math.sqrt(shape[1]!)
        for (let i = 0; i < elements; i++) values[i] = deviation * own.normal()
      }
      weights.set(name, values)
    }
    return values
  }
  return (_, tensor) => {
    if (names.has(tensor.name)) return weightOf(tensor)
    if (servingRole(tensor)?.kind !== "prompt") return undefined
    const own = random.split(tensor.name)
    return Int32Array.from({ length: tensor.elements }, () => own.below(model.vocabulary))
  }
}
