// Where a model's parameters and gradients are on one rank: whole tensors that its ops name, what is learnt of them there, and
// the layers that algorithms see. Whole on every rank here; in parts, shard/storage.ts. Knows no kernel of any model.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Dtype, Tensor, TensorData } from "../../machine/tensor.ts"
import type { Group } from "../../world.ts"
import type { TrainingLayer } from "./training-model.ts"

/** A parameter as a layer's ops read it. */
export interface ParameterSpec {
  readonly name: string
  readonly gradientName: string
  readonly shape: ReadonlyArray<number>
  /** Narrower than float32: a copy of what is learnt. */
  readonly dtype: Dtype
  /** Zeros where absent. */
  readonly initial?: (() => TensorData) | undefined
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
  /** Every parameter of the model. */
  readonly places: ReadonlyArray<ParameterPlace>
  /** The layers that algorithms see, of the ops of each layer of the model. */
  readonly layers: (ops: ReadonlyArray<LayerOps>) => ReadonlyArray<TrainingLayer>
}

export interface StorageOptions {
  /** The algorithm uses a step's gradients in the next one; see `PlannedAlgorithm`. */
  readonly gradientsLast?: boolean | undefined
}

/** The whole model on every rank. */
export const wholeStorage = (
  specs: ReadonlyArray<LayerSpec>,
  { gradientsLast }: StorageOptions
): Effect.Effect<Storage, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const whole: Array<WholeTensors> = []
    const stored: Array<StoredLayer> = []
    for (const [index, { parameters }] of specs.entries()) {
      const learnt: Array<Learnt> = []
      for (const { name, gradientName, shape, dtype, initial } of parameters) {
        const parameter = yield* machine.alloc({ name, shape, dtype: "float32", initial, persistent: true })
        const lasting = gradientsLast === true || undefined
        const gradient = yield* machine.alloc({ name: gradientName, shape, dtype, persistent: lasting })
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
        gradients: learnt.map(({ gradient }) => gradient)
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
        gradients: sum(all.map(({ gradient }) => gradient))
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
          return {
            name,
            parameters: learnt.map(({ parameter }) => parameter),
            gradients: learnt.map(({ gradient }) => gradient),
            ...ops[index]!,
            refresh: learnt.flatMap(({ parameter, shadow }) =>
              shadow === undefined
                ? []
                : [launch(`refresh ${name}`, kernels.copy, Lane.compute, [parameter], [shadow])]
            )
          }
        })
    }
  })
