// Where a model's parameters and gradients are on one rank: whole tensors that its ops name, what is learnt of them there, and
// the layers that algorithms see. Whole on every rank here; in parts, shard/storage.ts. Knows no kernel of any model.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import {
  elementsOf,
  sizeBytesOf,
  viewAlignment,
  type Dtype,
  type Initial,
  type Tensor
} from "../../machine/tensor.ts"
import type { Group } from "../../world.ts"
import { runningMean, type Accumulation } from "./accumulation.ts"
import type { TrainingLayer } from "./training-model.ts"

/** A parameter as a layer's ops read it. */
export interface ParameterSpec {
  readonly name: string
  readonly gradientName: string
  readonly shape: ReadonlyArray<number>
  /** Narrower than float32: a copy of what is learnt. */
  readonly dtype: Dtype
  /** Zeros where absent. */
  readonly initial?: Initial | undefined
}

export interface LayerSpec {
  readonly name: string
  readonly parameters: ReadonlyArray<ParameterSpec>
}

/** What a layer's ops read and write: one for each of its parameters, in order. */
export interface WholeTensors {
  readonly parameters: ReadonlyArray<Tensor>
  readonly gradients: ReadonlyArray<Tensor>
}

/** Float32, with the gradient that it is learnt by. */
export interface Learnt {
  readonly parameter: Tensor
  readonly gradient: Tensor
  /** A narrower copy that the optimizer writes too, where layers read one that lies on the rank. */
  readonly shadow: Tensor | undefined
}

/** A layer's ops, on its whole tensors. */
export interface LayerOps {
  readonly forward: ReadonlyArray<Op>
  readonly backward: ReadonlyArray<Op>
}

/** A layer as algorithms see it. */
export interface StoredLayer {
  readonly learnt: ReadonlyArray<Learnt>
  /** The model's layers (indices) that these are of. */
  readonly learns: ReadonlyArray<number>
}

/** Where a parameter lies in what is learnt. */
export interface ParameterPlace {
  readonly name: string
  readonly shape: ReadonlyArray<number>
  /** Layer as algorithms see it, and which of its learnt tensors. */
  readonly layer: number
  readonly learnt: number
  /** Element at which it begins, of that tensor's parts one behind the other, by the ranks that hold them. */
  readonly offset: number
}

/** Bytes of one rank, by what they are. */
export interface StorageBytes {
  /** What is learnt; and whole copies of it, in other dtypes or gathered. */
  readonly parameters: number
  readonly copies: number
  /** Whole ones, sums and parts. */
  readonly gradients: number
}

export interface Storage {
  readonly bytes: StorageBytes
  /** By layer of the model. */
  readonly whole: ReadonlyArray<WholeTensors>
  /** By layer as algorithms see it. */
  readonly stored: ReadonlyArray<StoredLayer>
  /** The ranks that hold the same of a model as this one, itself among them. */
  readonly peers: Group
  /** The ranks that hold a model together, where it is in parts. */
  readonly holders?: Group
  /** What gradients are summed in, among holders and among peers, where that is narrower than what they are kept in. */
  readonly reduceDtype?: Dtype
  /** Every parameter of the model. */
  readonly places: ReadonlyArray<ParameterPlace>
  /** The layers that algorithms see, of the ops of each layer of the model. */
  readonly layers: (ops: ReadonlyArray<LayerOps>) => ReadonlyArray<TrainingLayer>
}

export interface StorageOptions {
  /** The algorithm uses a step's gradients in the next one; see `PlannedAlgorithm`. */
  readonly gradientsLast?: boolean | undefined
  readonly accumulation?: Accumulation | undefined
  /** No layer's backward pass writes another's gradients: those of one micro-batch may lie in one place, layer after layer. */
  readonly layersShare?: boolean | undefined
}

/** What backward passes write of each layer where gradients are accumulated elsewhere; none where they are not. */
const passingGradients = (
  specs: ReadonlyArray<LayerSpec>,
  none: boolean,
  share: boolean
): Effect.Effect<
  { readonly of: ReadonlyArray<ReadonlyArray<Tensor>>; readonly bytes: number },
  OutOfMemory,
  Machine
> =>
  Effect.gen(function* () {
    if (none) return { of: [], bytes: 0 }
    const machine = yield* Machine
    const sizeOf = ({ shape, dtype }: ParameterSpec) => {
      const own = sizeBytesOf(elementsOf(shape), dtype)
      return share ? viewAlignment * Math.ceil(own / viewAlignment) : own
    }
    const layerBytes = specs.map(({ parameters }) =>
      parameters.reduce((sum, parameter) => sum + sizeOf(parameter), 0)
    )
    const bytes = share ? Math.max(0, ...layerBytes) : layerBytes.reduce((sum, one) => sum + one, 0)
    const arena =
      share && bytes > 0
        ? yield* machine.alloc({ name: "gradients of a layer", shape: [bytes], dtype: "int8" })
        : undefined
    const of: Array<ReadonlyArray<Tensor>> = []
    for (const { parameters } of specs) {
      let offsetBytes = 0
      const own: Array<Tensor> = []
      for (const parameter of parameters) {
        const { gradientName, shape, dtype } = parameter
        const within = arena === undefined ? {} : { within: { arena, offsetBytes } }
        own.push(yield* machine.alloc({ name: `${gradientName} of a micro-batch`, shape, dtype, ...within }))
        offsetBytes += sizeOf(parameter)
      }
      of.push(own)
    }
    return { of, bytes }
  })

/** The whole model on every rank. */
export const wholeStorage = (
  specs: ReadonlyArray<LayerSpec>,
  { gradientsLast, accumulation, layersShare }: StorageOptions
): Effect.Effect<Storage, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const passing = yield* passingGradients(specs, accumulation === undefined, layersShare === true)
    const whole: Array<WholeTensors> = []
    const stored: Array<StoredLayer> = []
    for (const [index, { parameters }] of specs.entries()) {
      const learnt: Array<Learnt> = []
      for (const { name, gradientName, shape, dtype, initial } of parameters) {
        const parameter = yield* machine.alloc({ name, shape, dtype: "float32", initial, persistent: true })
        const lasting = gradientsLast === true || undefined
        const gradient = yield* machine.alloc({
          name: gradientName,
          shape,
          dtype: accumulation === undefined ? dtype : "float32",
          persistent: lasting
        })
        const shadow =
          dtype === "float32"
            ? undefined
            : yield* machine.alloc({
                name: `${name} ${dtype}`,
                shape,
                dtype,
                initial,
                persistent: { copyOf: parameter }
              })
        learnt.push({ parameter, gradient, shadow })
      }
      whole.push({
        parameters: learnt.map(({ parameter, shadow }) => shadow ?? parameter),
        gradients: passing.of[index] ?? learnt.map(({ gradient }) => gradient)
      })
      stored.push({ learnt, learns: [index] })
    }
    const all = stored.flatMap(({ learnt }) => learnt)
    const sum = (tensors: ReadonlyArray<Tensor | undefined>): number =>
      tensors.reduce((bytes, tensor) => bytes + (tensor?.sizeBytes ?? 0), 0)
    return {
      bytes: {
        parameters: sum(all.map(({ parameter }) => parameter)),
        copies: sum(all.map(({ shadow }) => shadow)),
        gradients: sum(all.map(({ gradient }) => gradient)) + passing.bytes
      },
      whole,
      stored,
      peers: machine.world.all,
      places: specs.flatMap(({ parameters }, layer) =>
        parameters.map(({ name, shape }, learnt) => ({ name, shape, layer, learnt, offset: 0 }))
      ),
      layers: (ops) =>
        specs.map(({ name }, index) => {
          const { learnt } = stored[index]!
          const { forward, backward } = ops[index]!
          const mean =
            accumulation &&
            runningMean(
              `accumulate ${name}`,
              Lane.compute,
              accumulation,
              learnt.map(({ gradient }, i) => [whole[index]!.gradients[i]!, gradient])
            )
          return {
            name,
            parameters: learnt.map(({ parameter }) => parameter),
            gradients: learnt.map(({ gradient }) => gradient),
            forward,
            backward: mean === undefined ? backward : [...backward, ...mean.last],
            ...(mean === undefined
              ? {}
              : {
                  earlier: {
                    forward,
                    backward: (microBatch) => [...backward.map((op) => ({ op })), ...mean.earlier(microBatch)]
                  }
                }),
            refresh: learnt.flatMap(({ parameter, shadow }) =>
              shadow === undefined
                ? []
                : [launch(`refresh ${name}`, kernels.copy, Lane.compute, [parameter], [shadow])]
            )
          }
        })
    }
  })
