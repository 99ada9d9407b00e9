// Which tokens a choice keeps when no values are carried: the choice's own reference kernels on scores drawn evenly. Time and
// memory depend on how many tokens stay, hardly on which.
import { planChoices } from "../../../core/algorithms/kv-serving/choices.ts"
import { servingRole } from "../../../core/algorithms/kv-serving/sequence.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import { kernels } from "../../../core/kernels/catalogue.ts"
import { evaluate } from "../../../core/kernels/evaluate.ts"
import { operand, type Operand } from "../../../core/kernels/kernel.ts"
import type { Tensor, TensorData } from "../../../core/machine/tensor.ts"
import { Random } from "../../../core/random.ts"

/** Values of the tensors that serving reads: lists of kept tokens, and generated tokens, all of which are token 0. */
export const keptSource = (
  { model, settings, requests }: ServingPlan,
  seed: number
): ((rank: number, tensor: Tensor) => TensorData | undefined) => {
  const random = new Random(seed).split("scores")
  const planned = new Map<string, ReturnType<typeof planChoices>>()
  const known = new Map<string, TensorData>()
  return (_rank, tensor) => {
    const role = servingRole(tensor)
    const { dtype, elements } = tensor
    if (role?.kind !== "kept") return dtype === "int32" ? new Int32Array(elements) : undefined
    const { promptTokens, shots } = requests[role.request]!
    const key = `${promptTokens} ${shots?.join(",") ?? ""}`
    const choices = planned.get(key) ?? planChoices(settings, model, promptTokens, shots)
    planned.set(key, choices)
    const choice = choices[role.layer]!
    // Layers that choose alike keep alike.
    const chosen = `${key} ${JSON.stringify(choice)}`
    let kept = known.get(chosen)
    if (kept === undefined) {
      const scores = operand([model.kvHeads, promptTokens], "float32")
      const own = random.split(key)
      let [data, before]: [TensorData, Operand] = [
        Float32Array.from({ length: scores.elements }, () => own.uniform()),
        scores
      ]
      for (const { kernel, attributes, reads } of choice.kind === "choose" ? choice.calls : []) {
        // Drawn in place of what queries and keys would give.
        if (reads !== "previous") continue
        const shape = kernels[kernel].shapes([before], attributes)![0]!
        const output = operand(shape, kernels[kernel].outputDtypes[0]!)
        const result =
          output.dtype === "int32" ? new Int32Array(output.elements) : new Float32Array(output.elements)
        evaluate(kernels[kernel], [before], [data], [output], [result], attributes)
        ;[data, before] = [result, output]
      }
      known.set(chosen, (kept = data))
    }
    return kept
  }
}
