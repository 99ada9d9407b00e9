// Runs a layer graph's step with the references, call by call: each value in an array of its own, or all in one arena.
import { kernels } from "../../core/kernels/catalogue.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { gradientName, stepCalls, type LayerGraph, type Value } from "../../core/models/layer-graph.ts"
import type { Placement } from "../../core/models/placement.ts"
import { Random } from "../../core/random.ts"

/** Loss, and every parameter's gradient, of drawn parameters and tokens. */
export const stepValues = (
  graph: LayerGraph,
  seed: number,
  { vocabulary, placed }: { readonly vocabulary: number; readonly placed?: Placement | undefined }
): ReadonlyMap<string, TensorData> => {
  const random = new Random(seed)
  const data = new Map<string, TensorData>()
  const arena = placed === undefined ? undefined : new ArrayBuffer(placed.sizeBytes)
  const offsets = new Map(placed?.places.map(({ value, offsetBytes }) => [value.name, offsetBytes]))
  const make = ({ name, dtype, elements }: Value): TensorData => {
    const offset = offsets.get(name)
    if (arena !== undefined && offset !== undefined)
      return dtype === "int32"
        ? new Int32Array(arena, offset, elements)
        : new Float32Array(arena, offset, elements)
    return dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
  }
  for (const input of graph.inputs) {
    const own = random.split(input.name)
    data.set(
      input.name,
      make(input).map(() => own.below(vocabulary))
    )
  }
  const parameters = graph.layers.flatMap((layer) => layer.parameters)
  for (const parameter of parameters) {
    const own = random.split(parameter.name)
    data.set(
      parameter.name,
      make(parameter).map(() => own.normal() / 2)
    )
  }
  for (const { kernel, inputs, outputs, attributes } of stepCalls(graph)) {
    for (const value of outputs) if (!data.has(value.name)) data.set(value.name, make(value))
    const of = (values: ReadonlyArray<Value>) => values.map(({ name }) => data.get(name)!)
    evaluate(kernels[kernel], inputs, of(inputs), outputs, of(outputs), attributes)
  }
  return new Map(
    [graph.loss.name, ...parameters.map(gradientName)].map((name) => [name, data.get(name)!.slice()] as const)
  )
}
