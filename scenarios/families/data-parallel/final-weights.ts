// What rank 0 has learnt when a training run ends, or, of a model in parts, the ranks that hold it together with rank 0.
// Knows nothing of files or of which algorithm trained.
import * as Effect from "effect/Effect"
import type { KernelModel, KernelModelBuilder } from "../../../core/algorithms/data-parallel/kernel-model.ts"
import { Machine } from "../../../core/machine/machine.ts"
import { elementsOf, type Tensor, type TensorData } from "../../../core/machine/tensor.ts"
import type { SavedParameter } from "../../../traces/weights-file.ts"

export class FinalWeights {
  /** Of the ranks of this process that hold a part. */
  readonly #models = new Map<number, KernelModel>()

  /** The model as it was, its parameters remembered. */
  watched(build: KernelModelBuilder): KernelModelBuilder {
    return Effect.gen({ self: this }, function* () {
      const model = yield* build
      const { rank } = yield* Machine
      if (model.holders.includes(0)) this.#models.set(rank, model)
      return model
    })
  }

  /** The parameters' values, copied out of a run that is about to give up its memory. */
  of(valuesOf: (rank: number, tensor: Tensor) => TensorData): ReadonlyArray<SavedParameter> {
    const { places, holders, usedRows } = this.#models.get(0)!
    const parts = (layer: number, learnt: number): ReadonlyArray<TensorData> =>
      holders.map((rank) => valuesOf(rank, this.#models.get(rank)!.layers[layer]!.parameters[learnt]!))
    const whole = new Map<string, TensorData>()
    const wholeOf = (layer: number, learnt: number): TensorData => {
      const key = `${layer} ${learnt}`
      const known = whole.get(key)
      if (known !== undefined) return known
      const own = parts(layer, learnt)
      const values = own.length === 1 ? own[0]! : joined(own)
      whole.set(key, values)
      return values
    }
    return places.map(({ name, shape, layer, learnt, offset }) => {
      const rows = usedRows.get(name) ?? shape[0] ?? 1
      const used = (elementsOf(shape) / (shape[0] ?? 1)) * rows
      return {
        name,
        // The padding of padded tables is not saved.
        shape: shape.length === 0 ? shape : [rows, ...shape.slice(1)],
        values: Float32Array.from(wholeOf(layer, learnt).subarray(offset, offset + used))
      }
    })
  }
}

const joined = (parts: ReadonlyArray<TensorData>): TensorData => {
  const values = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    values.set(part, at)
    at += part.length
  }
  return values
}
