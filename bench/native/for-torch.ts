// What PyTorch needs to train the same model on the same tokens: first weights as safetensors, tokens as int32. Read by
// torch_gpt2.py.
import { mkdirSync, writeFileSync } from "node:fs"
import { initialValues } from "../../core/machine/initial.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { initialParameters } from "../../core/models/initial-values.ts"
import type { LayerGraph } from "../../core/models/layer-graph.ts"
import { encodeHeader, encodeValues } from "../../traces/safetensors.ts"

/** By parameter: the values that a run of this seed begins with, in float32. */
export const firstValues = (graph: LayerGraph, seed: number): ReadonlyMap<string, TensorData> => {
  const initial = initialParameters(graph, seed)
  return new Map(
    graph.layers
      .flatMap(({ parameters }) => parameters)
      .map((parameter) => {
        const { name, shape } = parameter
        return [name, initialValues({ shape, dtype: "float32", initial: initial(parameter) })]
      })
  )
}

/** Writes first.safetensors, and a file for each of `tokens`: "text" is text.bin. */
export const writeForTorch = (
  folder: string,
  graph: LayerGraph,
  first: ReadonlyMap<string, TensorData>,
  tokens: Readonly<Record<string, Int32Array>>
): void => {
  mkdirSync(folder, { recursive: true })
  writeWeights(`${folder}/first.safetensors`, graph, first)
  for (const [name, { buffer, byteOffset, byteLength }] of Object.entries(tokens))
    writeFileSync(`${folder}/${name}.bin`, new Uint8Array(buffer, byteOffset, byteLength))
}

/** All parameters of the model, in float32. */
export const writeWeights = (
  file: string,
  graph: LayerGraph,
  weights: ReadonlyMap<string, TensorData>
): void => {
  const stored = graph.layers
    .flatMap(({ parameters }) => parameters)
    .map(({ name, shape }) => ({ name, shape, dtype: "float32" as const }))
  writeFileSync(
    file,
    Buffer.concat([
      encodeHeader(stored, {}),
      ...stored.map(({ name, dtype }) => encodeValues(weights.get(name)!, dtype))
    ])
  )
}
