// A model small enough to calculate by hand, whose every gradient depends on the batch, on the parameters as they are when
// they are used and on what the other layers pass on: an op that runs too early or too late changes a number.
// Vectors of one length: x_0 = batch; x_(l+1) = (1 - 0.3) x_l + 0.3 w_l0, plus each further parameter of the layer; a layer
// without parameters halves and negates. Backward, from g = x_L - batch: the gradient of w_lp is (1 - c) g + c w_lp + x_l
// with c = (p + 1) / 5; then g becomes 0.6 g + 0.4 x_l.
import * as Effect from "effect/Effect"
import type { Accumulation } from "../../core/algorithms/data-parallel/accumulation.ts"
import { clipOps } from "../../core/algorithms/data-parallel/clip.ts"
import type { ShardPlan } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { storageOf } from "../../core/algorithms/data-parallel/shard/storage.ts"
import type { LayerOps, LayerSpec } from "../../core/algorithms/data-parallel/storage.ts"
import type { TrainingModelBuilder } from "../../core/algorithms/data-parallel/training-model.ts"
import {
  optimizerState,
  optimizerUpdate,
  type Optimized,
  type Optimizer
} from "../../core/algorithms/data-parallel/optimizer.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import type { LayerCost, Profile } from "../../core/profile.ts"
import { Random } from "../../core/random.ts"

export interface Toy {
  /** How many parameters each layer has. */
  readonly layers: ReadonlyArray<number>
  /** Elements of every vector. */
  readonly width: number
  /** What every rank steps with on its own. */
  readonly optimizer: Optimizer
  readonly seed: number
  /** Gradients are clipped to this norm. */
  readonly clipNorm?: number | undefined
  /** Micro-batches of a step; one where absent. */
  readonly accumulation?: Accumulation | undefined
}

export const weightOfActivation = 0.3
export const weightOfParameter = (p: number): number => (p + 1) / 5
export const weightOfInput = 0.4

const vector = (random: Random, width: number): Float32Array =>
  Float32Array.from({ length: width }, () => random.normal())

/** Alike on all ranks at first, as replicas are. */
export const firstParameters = ({ layers, width, seed }: Toy): ReadonlyArray<ReadonlyArray<Float32Array>> => {
  const random = new Random(seed).split("parameters")
  return layers.map((count) => Array.from({ length: count }, () => vector(random, width)))
}

export const microBatchesOf = ({ accumulation }: Toy): number => accumulation?.microBatches ?? 1

/** What a rank learns from in a step, or in the micro-batch of that number, counted over steps. */
export const batchOf = ({ width, seed }: Toy, rank: number, index: number): Float32Array =>
  vector(new Random(seed).split(`batch ${rank} ${index}`), width)

export const nameOf = (layer: number, parameter: number): string => `w ${layer} ${parameter}`

interface ToyOptions {
  /** How it is divided; whole on every rank where absent. */
  readonly shard?: ShardPlan
  /** Whose batches a rank learns from; its own by default. */
  readonly batchesOf?: (rank: number) => number
  readonly gradientsLast?: boolean | undefined
}

/** The toy on a machine, with batches for so many steps. */
export const toyModel = (
  toy: Toy,
  steps: number,
  { shard, batchesOf = (rank) => rank, gradientsLast }: ToyOptions = {}
): TrainingModelBuilder =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const alloc = (name: string, initial?: () => Float32Array) =>
      machine.alloc({ name, shape: [toy.width], dtype: "float32", initial })
    const work = (
      kernel: "add" | "copy" | "lerp" | "scale" | "subtract",
      label: string,
      reads: ReadonlyArray<Tensor>,
      write: Tensor,
      attributes: Readonly<Record<string, number>> = {}
    ): Op => launch(label, kernels[kernel], Lane.compute, reads, [write], attributes)

    const batch = yield* alloc("batch")
    const batches: Array<Tensor> = []
    const perStep = microBatchesOf(toy)
    for (let index = 0; index < steps * perStep; index++)
      batches.push(yield* alloc(`batch ${index}`, () => batchOf(toy, batchesOf(machine.rank), index)))
    const first = firstParameters(toy)
    const flow = yield* alloc("gradient flow")
    const specs = toy.layers.map((count, l): LayerSpec => ({
      name: `layer ${l}`,
      parameters: Array.from({ length: count }, (_, p) => ({
        name: nameOf(l, p),
        gradientName: `${nameOf(l, p)} gradient`,
        shape: [toy.width],
        dtype: "float32",
        initial: () => first[l]![p]!
      }))
    }))
    const storage = yield* storageOf(specs, { gradientsLast, shard, accumulation: toy.accumulation })
    const ops: Array<LayerOps> = []
    const optimized: Array<ReadonlyArray<Optimized>> = []
    for (const { learnt } of storage.stored) {
      const updates: Array<Optimized> = []
      for (const { parameter, gradient } of learnt)
        updates.push(yield* optimizerState(toy.optimizer, parameter, gradient))
      optimized.push(updates)
    }
    let input = batch
    for (const [l, { parameters, gradients }] of storage.whole.entries()) {
      const output = yield* alloc(`x ${l + 1}`)
      const [head, ...more] = parameters
      ops.push({
        forward:
          head === undefined
            ? [work("scale", `forward ${l}`, [input], output, { factor: -0.5 })]
            : [
                work("lerp", `forward ${l}`, [input, head], output, { weight: weightOfActivation }),
                ...more.map((one) => work("add", `forward ${l}`, [output, one], output))
              ],
        backward: [
          ...(l === toy.layers.length - 1 ? [work("subtract", "loss", [output, batch], flow)] : []),
          ...parameters.flatMap((one, p) => [
            work("lerp", `backward ${l}`, [flow, one], gradients[p]!, { weight: weightOfParameter(p) }),
            work("add", `backward ${l}`, [gradients[p]!, input], gradients[p]!)
          ]),
          work("lerp", `backward ${l}`, [flow, input], flow, { weight: weightOfInput })
        ]
      })
      input = output
    }
    return {
      layers: storage.layers(ops),
      gradientsFollow: storage.holders !== undefined,
      reduceDtype: storage.reduceDtype,
      peers: storage.peers,
      clip: yield* clipOps(storage, toy.clipNorm),
      accumulation: toy.accumulation,
      begin: (step, microBatch = 0) => [
        { op: work("copy", "begin", [batches[step * perStep + microBatch]!], batch) }
      ],
      update: (indices) =>
        optimizerUpdate(
          toy.optimizer,
          `update ${indices.join(" ")}`,
          indices.flatMap((l) => optimized[l]!)
        )
    }
  })

const phase = (seconds: number) => ({ busySeconds: seconds, spanSeconds: seconds })

/** What a planner is told of the toy: each layer's times are whatever the seed says. */
export const toyProfile = ({ layers, width, seed }: Toy): Profile => {
  const random = new Random(seed).split("times")
  const costs = layers.map((_, l): LayerCost => ({
    name: `layer ${l}`,
    forward: phase(random.uniform()),
    backward: phase(2 * random.uniform()),
    optimizer: phase(random.uniform() / 4)
  }))
  const stepSeconds = costs.reduce(
    (sum, { forward, backward, optimizer }) =>
      sum + forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds,
    0
  )
  return {
    name: "toy",
    device: "",
    source: "",
    steps: 1,
    stepSeconds,
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: stepSeconds,
    unattributedShare: 0,
    layers: costs,
    // In the order in which gradients become ready.
    parameters: layers
      .flatMap((count, layer) =>
        Array.from({ length: count }, () => ({ layer, shape: [width], dtype: "float32" }))
      )
      .toReversed(),
    ops: [],
    collectives: []
  }
}
