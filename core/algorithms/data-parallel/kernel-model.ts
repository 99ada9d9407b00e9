// A model whose every op is a real kernel: a layer graph's calls on a rank's tensors, with batches drawn from a corpus and an
// optimizer. The same builder serves both machines; data-parallel algorithms cannot tell it from a profiled model.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor, TensorSpec } from "../../machine/tensor.ts"
import { initialParameters } from "../../models/initial-values.ts"
import {
  callsOf,
  gradientName,
  phases,
  type KernelCall,
  type LayerGraph,
  type Value
} from "../../models/layer-graph.ts"
import { optimizerState, optimizerUpdate, type Optimized, type Optimizer } from "./optimizer.ts"
import type { StepSubmissions, Submission, TrainingLayer, TrainingModel } from "./training-model.ts"

export interface KernelModelOptions {
  readonly graph: LayerGraph
  readonly optimizer: Optimizer
  /** Token ids below the vocabulary, at least one more than a sequence has. */
  readonly corpus: Int32Array
  /** Held out for `evaluate`; none by default. */
  readonly heldOut?: Int32Array | undefined
  /** Of initial parameters, and of each rank's batches. */
  readonly seed: number
}

export interface KernelModel extends TrainingModel {
  /** Of parameters that are padded tables, by name: the rows in use. */
  readonly usedRows: ReadonlyMap<string, number>
  /** Mean cross-entropy of the last forward pass, a scalar. */
  readonly loss: Tensor
  /** A forward pass over batch `index` of the held-out tokens, the same on every rank; leaves its loss in `loss`. */
  readonly evaluate: StepSubmissions
}

export type KernelModelBuilder = Effect.Effect<KernelModel, OutOfMemory, Machine>

/** All ranks draw the held-out batches from this one stream, which no rank trains on. */
const heldOutStream = -1

/**
 * Throws RangeError for a graph whose inputs are not token ids and targets of one shape [batch, time].
 * Every value of the graph has a tensor of its own for the whole run.
 */
export const kernelModel = (options: KernelModelOptions): KernelModelBuilder =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { graph, optimizer, seed } = options
    const [tokens, targets] = graph.inputs
    const [batch, time] = tokens?.shape ?? []
    if (targets === undefined || batch === undefined || time === undefined || tokens!.shape.length !== 2) {
      throw new RangeError(`${graph.name}: its inputs are not token ids and targets of shape [batch, time]`)
    }

    const tensors = new Map<string, Tensor>()
    const allocate = (value: Value, initial?: TensorSpec["initial"]) =>
      Effect.map(
        machine.alloc({ name: value.name, shape: value.shape, dtype: value.dtype, initial }),
        (tensor) => {
          tensors.set(value.name, tensor)
          return tensor
        }
      )
    const tensorOf = ({ name }: Value): Tensor => tensors.get(name)!
    const opOf = (layer: string, phase: string, { kernel, inputs, outputs, attributes }: KernelCall): Op =>
      launch(
        `${phase} ${layer}`,
        kernels[kernel],
        Lane.compute,
        inputs.map(tensorOf),
        outputs.map(tensorOf),
        attributes
      )

    for (const input of graph.inputs) yield* allocate(input)
    const initial = initialParameters(graph, seed)
    for (const { parameters } of graph.layers) {
      for (const parameter of parameters) {
        yield* allocate(parameter, () => initial(parameter))
        yield* allocate({ ...parameter, name: gradientName(parameter) })
      }
    }
    // A tied gradient is written by two calls; every other value by one.
    for (const phase of phases) {
      for (const { outputs } of callsOf(graph, phase))
        for (const value of outputs) if (!tensors.has(value.name)) yield* allocate(value)
    }

    const draw = (name: string, ids: Int32Array, stream: number) =>
      Effect.map(machine.alloc({ name, shape: [ids.length], dtype: "int32", initial: () => ids }), (corpus) =>
        launch(name, kernels.token_windows, Lane.compute, [corpus], [tensorOf(tokens!), tensorOf(targets)], {
          batch,
          time,
          seed,
          stream
        })
      )
    const train = yield* draw("batch", options.corpus, machine.rank)
    const test =
      options.heldOut === undefined
        ? undefined
        : yield* draw("held-out batch", options.heldOut, heldOutStream)

    const layers: Array<TrainingLayer> = []
    const optimized: Array<ReadonlyArray<Optimized>> = []
    for (const layer of graph.layers) {
      const parameters = layer.parameters.map(tensorOf)
      const gradients = layer.parameters.map((parameter) => tensors.get(gradientName(parameter))!)
      const own: Array<Optimized> = []
      for (const [index, parameter] of parameters.entries())
        own.push(yield* optimizerState(optimizer, parameter, gradients[index]!))
      optimized.push(own)
      layers.push({
        name: layer.name,
        parameters,
        gradients,
        forward: layer.forward.map((call) => opOf(layer.name, "forward", call)),
        backward: [...layer.backwardInput, ...layer.backwardWeight].map((call) =>
          opOf(layer.name, "backward", call)
        )
      })
    }
    const forward = layers.flatMap((layer) => layer.forward).map((op): Submission => ({ op }))
    return {
      layers,
      begin: (step) => [{ op: train, scalars: [step] }],
      update: (indices) => {
        const updates = indices.map((index) =>
          optimizerUpdate(optimizer, `optimizer ${layers[index]!.name}`, optimized[index]!)
        )
        return (step) => updates.flatMap((update) => update(step))
      },
      usedRows: new Map(
        graph.layers.flatMap(({ parameters }) =>
          parameters.flatMap(({ name, usedRows }) =>
            usedRows === undefined ? [] : [[name, usedRows] as const]
          )
        )
      ),
      loss: tensorOf(graph.loss),
      evaluate: (index) => {
        if (test === undefined) throw new RangeError(`${graph.name}: no held-out tokens were given`)
        return [{ op: test, scalars: [index] }, ...forward]
      }
    }
  })
