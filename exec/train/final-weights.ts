// Keeps what rank 0 has learnt when a training run ends, and says what a file of weights must tell of the model.
// Knows nothing of files or of which algorithm trained.
import * as Effect from "effect/Effect"
import type { KernelModelBuilder } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { Machine } from "../../core/machine/machine.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { llamaRopeBase } from "../../core/models/llama.ts"
import type { ArchitectureSettings } from "../../scenarios/model-graph.ts"
import type { SavedParameter, SavedWeights } from "../../traces/weights-file.ts"
import type { Ended } from "../execute.ts"

export class FinalWeights {
  #tensors: ReadonlyArray<Tensor> = []
  /** Of padded tables; the padding is not saved. */
  #usedRows: ReadonlyMap<string, number> = new Map()
  #parameters: ReadonlyArray<SavedParameter> = []

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

  /** Copies the values out of a run that is about to give up its memory. */
  take({ valuesOf }: Ended<unknown>): void {
    this.#parameters = this.#tensors.map((tensor) => {
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

  /** Of the run that ended; none before. */
  get parameters(): ReadonlyArray<SavedParameter> {
    return this.#parameters
  }
}

/** An architecture's name and sizes, defaults filled in. Sequences in a batch are the run's, not the model's. */
export const architectureOf = (model: ArchitectureSettings): Pick<SavedWeights, "model" | "sizes"> => {
  if ("llama" in model) {
    const { batch: _, vocabularyMultiple: __, ...sizes } = model.llama
    return { model: "llama", sizes: { kvHeads: sizes.heads, ropeBase: llamaRopeBase, ...sizes } }
  }
  if ("gpt2" in model) {
    const { batch: _, vocabularyMultiple: __, ...sizes } = model.gpt2
    return { model: "gpt2", sizes: { ...sizes } }
  }
  const { batch: _, vocabularyMultiple: __, ...sizes } = model.mixtral
  return { model: "mixtral", sizes: { kvHeads: sizes.heads, ...sizes } }
}
