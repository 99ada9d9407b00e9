// A model whose every op is a real kernel: a layer graph's calls on a rank's tensors, with batches drawn from a corpus and an
// optimizer. The same builder serves both machines; data-parallel algorithms cannot tell it from a profiled model.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import { dtypeBits, type Dtype, type Initial, type Tensor } from "../../machine/tensor.ts"
import type { FuseRule } from "../../models/fuse.ts"
import { initialParameters } from "../../models/initial-values.ts"
import { gradientName, type KernelCall, type LayerGraph, type Value } from "../../models/layer-graph.ts"
import { lossScaling, withScaledLoss } from "../../models/loss-scale.ts"
import { placement } from "../../models/placement.ts"
import { trainingGraph, type Recompute } from "../../models/recompute.ts"
import { withMeanLoss, type Accumulation } from "./accumulation.ts"
import { clipOps } from "./clip.ts"
import { readCorpus, type Corpus, type Reading } from "./corpus.ts"
import { optimizerState, optimizerUpdate, type Optimized, type Optimizer } from "./optimizer.ts"
import { scaledLoss, type LossScaling } from "./loss-scale.ts"
import type { ShardPlan } from "./shard/plan.ts"
import { storageOf } from "./shard/storage.ts"
import type { LayerSpec, ParameterPlace } from "./storage.ts"
import type { StepSubmissions, Submission, TrainingModel } from "./training-model.ts"

/** What an op of the model is a part of; an optimizer's step may be of all layers at once. */
export type LayerRole =
  | { readonly kind: "forward" | "backward"; readonly layer: number }
  | { readonly kind: "optimizer"; readonly layer?: number }

/**
 * What a model of real kernels is made of: its layer graph, what is fused and computed again, its optimizer
 * and its text.
 */
export interface KernelModelOptions {
  readonly graph: LayerGraph
  readonly optimizer: Optimizer
  /** What is fused; default `trainingRules`. */
  readonly rules?: ReadonlyArray<FuseRule>
  /** What the backward pass computes again rather than keeps; default nothing. */
  readonly recompute?: Recompute | undefined
  /** Of which a chunk has at least one token more than a sequence. */
  readonly corpus: Corpus
  /** Held out for `evaluate`; none by default. */
  readonly heldOut?: Int32Array | undefined
  /** Most that the norm of all gradients together may be; they are scaled down where it is more. Default: any. */
  readonly clipNorm?: number | undefined
  /** Of a model whose gradients are float16; default: the loss is not scaled. */
  readonly lossScaling?: LossScaling | undefined
  /** What parameters hold at first; by default drawn from `seed`. */
  readonly initial?: ((parameter: Value) => Initial) | undefined
  /** Of initial parameters, and of each rank's batches. */
  readonly seed: number
  /** The algorithm uses a step's gradients in the next one; see `PlannedAlgorithm`. */
  readonly gradientsLast?: boolean | undefined
  /** How the model is divided; whole on every rank where absent. */
  readonly shard?: ShardPlan | undefined
  /** Of batches as the graph has them; a step has one where absent. Micro-batch i of step s has the place of step s * n + i. */
  readonly accumulation?: Accumulation | undefined
}

/** A training model of real kernels on one rank's tensors, with its loss and its batches. */
export interface KernelModel extends TrainingModel {
  /** Where each parameter is found again in what is learnt, and the ranks that hold it together. */
  readonly places: ReadonlyArray<ParameterPlace>
  readonly holders: ReadonlyArray<number>
  /** Of parameters that are padded tables, by name: the rows in use. */
  readonly usedRows: ReadonlyMap<string, number>
  /** Mean cross-entropy of the last step, or of the last evaluation's forward pass, a scalar. */
  readonly loss: Tensor
  /** What `loss_scale` keeps, of a loss that is scaled. */
  readonly lossScale: Tensor | undefined
  /** After so many steps, before the next: brings other tokens to draw from, where it is their turn. */
  readonly turnCorpus: Reading["turn"]
  /** A forward pass over batch `index` of the held-out tokens, the same on every rank; leaves its loss in `loss`. */
  readonly evaluate: StepSubmissions
}

/** Allocates the model on the machine that it runs on; fails where a memory does not hold it. */
export type KernelModelBuilder = Effect.Effect<KernelModel, OutOfMemory, Machine>

/** All ranks draw the held-out batches from this one stream, which no rank trains on. */
const heldOutStream = -1

/** Tensors for all values that come and go within a step, in one arena. */
const allocatePlaced = (
  graph: LayerGraph,
  tensors: Map<string, Tensor>
): Effect.Effect<void, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { places, sizeBytes } = placement(graph)
    if (places.length === 0) return
    const dtype = narrowest(places.map(({ value }) => value.dtype))
    const elements = Math.ceil((8 * sizeBytes) / dtypeBits[dtype])
    const arena = yield* machine.alloc({ name: "activations", shape: [elements], dtype })
    for (const { value, offsetBytes } of places) {
      const { name, shape, dtype: own } = value
      const within = { arena, offsetBytes }
      tensors.set(name, yield* machine.alloc({ name, shape, dtype: own, within }))
    }
  })

const usedRowsOf = ({ layers }: LayerGraph): ReadonlyMap<string, number> =>
  new Map(
    layers.flatMap(({ parameters }) =>
      parameters.flatMap(({ name, usedRows }) => (usedRows === undefined ? [] : [[name, usedRows] as const]))
    )
  )

const narrowest = (dtypes: ReadonlyArray<Dtype>): Dtype =>
  dtypes.reduce((one, other) => (dtypeBits[other] < dtypeBits[one] ? other : one))

/**
 * The graph, fused and placed. Throws RangeError for one whose inputs are not token ids and targets of one shape [batch, time].
 * Parameters narrower than float32 have float32 masters, which are what is learnt, averaged and saved.
 */
export const kernelModel = (options: KernelModelOptions): KernelModelBuilder =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { optimizer, seed, accumulation } = options
    const microBatches = accumulation?.microBatches ?? 1
    const scaled = yield* scaledLoss(options.lossScaling)
    const described = scaled === undefined ? options.graph : withScaledLoss(options.graph)
    const graph = trainingGraph(described, options.recompute, options.rules)
    const [tokens, targets] = graph.inputs
    const [batch, time] = tokens?.shape ?? []
    if (targets === undefined || batch === undefined || time === undefined || tokens!.shape.length !== 2) {
      throw new RangeError(`${graph.name}: its inputs are not token ids and targets of shape [batch, time]`)
    }

    const tensors = new Map<string, Tensor>()
    const allocate = ({ name, shape, dtype }: Value) =>
      Effect.map(machine.alloc({ name, shape, dtype }), (tensor) => {
        tensors.set(name, tensor)
        return tensor
      })
    const tensorOf = ({ name }: Value): Tensor => tensors.get(name)!
    const opOf = (
      layer: number,
      phase: "forward" | "backward",
      { kernel, inputs, outputs, attributes }: KernelCall
    ): Op =>
      launch(
        `${phase} ${graph.layers[layer]!.name}`,
        kernels[kernel],
        Lane.compute,
        inputs.map(tensorOf),
        outputs.map(tensorOf),
        attributes,
        { kind: phase, layer } satisfies LayerRole
      )

    if (scaled !== undefined) tensors.set(lossScaling.name, scaled.state)
    for (const input of graph.inputs) yield* allocate(input)
    yield* allocate(graph.loss)
    const initial = options.initial ?? initialParameters(options.graph, seed)
    const specs = graph.layers.map(({ name, parameters }): LayerSpec => ({
      name,
      parameters: parameters.map((value) => ({
        name: value.name,
        gradientName: gradientName(value),
        shape: value.shape,
        dtype: value.dtype,
        initial: initial(value)
      }))
    }))
    const storage = yield* storageOf(specs, options)
    for (const [index, { parameters, gradients }] of storage.whole.entries()) {
      graph.layers[index]!.parameters.forEach((value, i) => {
        tensors.set(value.name, parameters[i]!)
        tensors.set(gradientName(value), gradients[i]!)
      })
    }
    yield* allocatePlaced(graph, tensors)

    const draw = (name: string, corpus: Tensor, stream: number): Op =>
      launch(
        name,
        kernels.token_windows,
        Lane.compute,
        [corpus],
        [tensorOf(tokens!), tensorOf(targets)],
        { batch, time, seed, stream },
        // Bringing a batch is a part of the first layer's forward pass.
        { kind: "forward", layer: 0 } satisfies LayerRole
      )
    const corpus = yield* readCorpus(options.corpus, { seed, stepTokens: microBatches * batch * time })
    const train = draw("batch", corpus.tensor, machine.rank)
    const { heldOut } = options
    const test =
      heldOut === undefined
        ? undefined
        : draw(
            "held-out batch",
            yield* machine.alloc({
              name: "held-out batch",
              shape: [heldOut.length],
              dtype: "int32",
              initial: () => heldOut
            }),
            heldOutStream
          )

    const optimized: Array<ReadonlyArray<Optimized>> = []
    for (const { learnt } of storage.stored) {
      const states: Array<Optimized> = []
      for (const { parameter, gradient, shadow } of learnt)
        states.push(yield* optimizerState(optimizer, parameter, gradient, shadow))
      optimized.push(states)
    }
    const passes = storage.layers(
      graph.layers.map(({ forward, backwardInput, backwardWeight }, layer) => ({
        forward: forward.map((call) => opOf(layer, "forward", call)),
        backward: [...backwardInput, ...backwardWeight].map((call) => opOf(layer, "backward", call))
      }))
    )
    const { layers, loss, ofOnePass } = yield* withMeanLoss(passes, tensorOf(graph.loss), accumulation)
    // Evaluation sees what is learnt, even where an average has not reached what the layers read.
    const forward = [
      ...layers.flatMap((layer) => layer.refresh),
      ...layers.flatMap((layer) => layer.forward)
    ].map((op): Submission => ({ op }))
    return {
      layers,
      begin: (step, microBatch = 0) => [{ op: train, scalars: [step * microBatches + microBatch] }],
      accumulation,
      update: (indices) => {
        const learning = indices.filter((index) => optimized[index]!.length > 0)
        const [only] = learning.length === 1 ? learning : []
        const role = { kind: "optimizer", ...(only === undefined ? {} : { layer: only }) } satisfies LayerRole
        return optimizerUpdate(
          optimizer,
          only === undefined ? "optimizer" : `optimizer ${layers[only]!.name}`,
          learning.flatMap((index) => optimized[index]!),
          { role, scaling: scaled?.state }
        )
      },
      usedRows: usedRowsOf(graph),
      clip: yield* clipOps(storage, options.clipNorm, scaled),
      gradientsFollow: storage.holders !== undefined,
      reduceDtype: storage.reduceDtype,
      peers: storage.peers,
      places: storage.places,
      holders: storage.holders?.ranks ?? [machine.rank],
      loss,
      lossScale: scaled?.state,
      turnCorpus: corpus.turn,
      evaluate: (index) => {
        if (test === undefined) throw new RangeError(`${graph.name}: no held-out tokens were given`)
        return [{ op: test, scalars: [index] }, ...forward, ...ofOnePass]
      }
    }
  })
