// The layer graph of an architecture as a scenario describes it.
import type { Dtype } from "../core/machine/tensor.ts"
import type { ModelSettings } from "./sections.ts"
import { gpt2 } from "../core/models/gpt2.ts"
import type { LayerGraph } from "../core/models/layer-graph.ts"
import { llama, llamaRopeBase } from "../core/models/llama.ts"
import { mixtral } from "../core/models/mixtral.ts"
import type { SavedWeights } from "../traces/weights-file.ts"

/** Settings that say what the model is made of, rather than what it costs. */
type ArchitectureSettings = Exclude<ModelSettings, { profile: string } | { stepSeconds: number }>

/** Whether a model is described by its architecture. */
export const isArchitecture = (model: ModelSettings): model is ArchitectureSettings =>
  "gpt2" in model || "llama" in model || "mixtral" in model

/**
 * `precision` of activations and, where they have none of their own, parameters; default bfloat16 and float32. Throws
 * RangeError for sizes that do not divide.
 */
export const modelGraph = (
  model: ArchitectureSettings,
  precision?: Dtype,
  parameterDtype = precision
): LayerGraph => {
  const dtype =
    precision === undefined || parameterDtype === undefined
      ? {}
      : { activationDtype: precision, parameterDtype }
  if ("gpt2" in model) return gpt2({ ...model.gpt2, ...dtype })
  if ("llama" in model) return llama({ kvHeads: model.llama.heads, ...model.llama, ...dtype })
  return mixtral({ kvHeads: model.mixtral.heads, ...model.mixtral, ...dtype })
}

/** Token ids are below it. */
export const vocabularyOf = (model: ArchitectureSettings): number => {
  if ("gpt2" in model) return model.gpt2.vocabulary
  return "llama" in model ? model.llama.vocabulary : model.mixtral.vocabulary
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
