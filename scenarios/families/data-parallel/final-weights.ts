// What rank 0 has learnt when a training run ends.
// Knows nothing of files or of which algorithm trained.
import * as Effect from "effect/Effect"
import type { KernelModelBuilder } from "../../../core/algorithms/data-parallel/kernel-model.ts"
import { Machine } from "../../../core/machine/machine.ts"
import type { Tensor, TensorData } from "../../../core/machine/tensor.ts"
import type { SavedParameter } from "../../../traces/weights-file.ts"

export class FinalWeights {
  #tensors: ReadonlyArray<Tensor> = []
  /** Of padded tables; the padding is not saved. */
  #usedRows: ReadonlyMap<string, number> = new Map()

  /** The model as it was, its parameters remembered. */
  watched(build: KernelModelBuilder): KernelModelBuilder {
    return Effect.gen({ self: this }, function* () {
      const model = yield* build
      const { rank } = yield* Machine
      if (rank !== 0) return model
      this.#tensors = model.layers.flatMap(({ parameters }) => parameters)
      this.#usedRows = model.usedRows
      return model
    })
  }

  /** The parameters' values, copied out of a run that is about to give up its memory. */
  of(valuesOf: (rank: number, tensor: Tensor) => TensorData): ReadonlyArray<SavedParameter> {
    return this.#tensors.map((tensor) => {
      const { name, shape, elements } = tensor
      const rows = this.#usedRows.get(name) ?? shape[0] ?? 1
      const used = (elements / (shape[0] ?? 1)) * rows
      return {
        name,
        shape: shape.length === 0 ? shape : [rows, ...shape.slice(1)],
        values: Float32Array.from(valuesOf(0, tensor).subarray(0, used))
      }
    })
  }
}
