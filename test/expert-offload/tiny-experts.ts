// A small model whose experts lie in host memory.
import type { MoeModel } from "../../core/algorithms/expert-offload/model.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"

export const offloadModel: MoeModel = {
  layers: 2,
  experts: 5,
  topK: 2,
  width: 8,
  ffnWidth: 6,
  heads: 2,
  kvHeads: 1,
  gated: true,
  normalize: true,
  vocabulary: 13,
  dtype: "float32"
}

/** Large enough that routes differ from token to token. */
export const expertValues = (_: number, tensor: Tensor) => {
  if (tensor.dtype === "int32" || tensor.shape.length < 2 || /^(slot|prefill|decode)/u.test(tensor.name))
    return undefined
  const random = new Random(3).split(tensor.name)
  return Float32Array.from({ length: tensor.elements }, () => random.normal() / 2)
}
