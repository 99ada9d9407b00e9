// A model as data-parallel algorithms see it on one rank: layers with parameters, gradients and the ops of each phase.
// What the ops are (one timed op per layer, or real kernels) is the builder's choice; the algorithms cannot tell.
import * as Effect from "effect/Effect"
import { barrier } from "../../kernels/barrier.ts"
import { kernels } from "../../kernels/catalogue.ts"
import type { Kernel } from "../../kernels/kernel.ts"
import type { Scalars } from "../../kernels/scalars.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Dtype, Role, Tensor } from "../../machine/tensor.ts"
import { layerDtype, type Profile } from "../../profile.ts"
import type { Group } from "../../world.ts"
import type { Accumulation, EarlierSubmissions } from "./accumulation.ts"
import { clipOps } from "./clip.ts"
import { scaledLoss, type LossScaling } from "./loss-scale.ts"
import type { ShardPlan } from "./shard/plan.ts"
import { storageOf } from "./shard/storage.ts"
import type { LayerSpec, Storage, StorageBytes } from "./storage.ts"

/** One layer of a model on one rank's machine: its tensors, and the ops of its passes. */
export interface TrainingLayer {
  readonly name: string
  readonly parameters: ReadonlyArray<Tensor>
  /** One per parameter, same order and shape. */
  readonly gradients: ReadonlyArray<Tensor>
  readonly forward: ReadonlyArray<Op>
  /** When the last of them ends, every gradient of the layer is ready. */
  readonly backward: ReadonlyArray<Op>
  /**
   * To be submitted before the next forward pass when anything but the optimizer has changed `parameters`: brings what the
   * layer reads, where that is a copy of them in a narrower dtype. Otherwise nothing.
   */
  readonly refresh: ReadonlyArray<Op>
  /** Where a step has several micro-batches: `forward` is of the first, `backward` of the last, these are of those between. */
  readonly earlier?: EarlierPasses | undefined
}

interface EarlierPasses {
  /** Of micro-batches after the first. */
  readonly forward: ReadonlyArray<Op>
  /** Of micro-batches before the last. */
  readonly backward: EarlierSubmissions
}

/** One submission of an op that was built before; what changes from one to the next are its scalars. */
export interface Submission {
  readonly op: Op
  readonly scalars?: Scalars
}

/** What is submitted in a step, 0 for the first. The ops are the same in every step. */
export type StepSubmissions = (step: number) => ReadonlyArray<Submission>

/** A model as data-parallel algorithms see it: layers, an optimizer's step, and the ranks to average with. */
export interface TrainingModel {
  /** In forward order; the backward pass runs them in reverse. */
  readonly layers: ReadonlyArray<TrainingLayer>
  /** Brings a step's batch, or one of its micro-batches (default the first), before its forward pass. */
  readonly begin: (step: number, microBatch?: number) => ReadonlyArray<Submission>
  /** Absent where a step has one batch. */
  readonly accumulation?: Accumulation | undefined
  /**
   * The optimizer's step for the parameters of these layers (indices), after their backward passes. To be asked for once for
   * each set of layers, before the first step: it builds the ops.
   */
  readonly update: (layers: ReadonlyArray<number>) => StepSubmissions
  /**
   * To be submitted in every step between the last of all gradients and the first update, where there are any: gradients that
   * are clipped by their common norm wait for each other.
   */
  readonly clip: ReadonlyArray<Op>
  /**
   * A layer's gradients are there some time after its backward pass, as those who hold a model together sum them: its local step, taken
   * at once, would hold up the next layer's backward pass.
   */
  readonly gradientsFollow: boolean
  /** Gradients that are averaged are rounded to it on their way, where it is narrower than they are. Default: they are not. */
  readonly reduceDtype?: Dtype | undefined
  /** With whom this rank averages what it learns: all ranks, or, of a model in parts, all that learn the same part. */
  readonly peers: Group
}

export const submitAll = (machine: Machine["Service"], submissions: ReadonlyArray<Submission>): void => {
  for (const { op, scalars } of submissions) machine.submit(op, scalars)
}

/**
 * What lies between a step's first forward pass and its last backward pass: nothing, but where it has several micro-batches.
 * Every program submits it there. `afterBackward` is told of each layer that has run backward.
 */
export const submitEarlier = (
  machine: Machine["Service"],
  { layers, begin, accumulation }: TrainingModel,
  step: number,
  afterBackward?: (layer: number) => void
): void => {
  if (accumulation === undefined) return
  for (let index = 0; index + 1 < accumulation.microBatches; index++) {
    for (let l = layers.length - 1; l >= 0; l--) {
      submitAll(machine, layers[l]!.earlier!.backward(index))
      afterBackward?.(l)
    }
    submitAll(machine, begin(step, index + 1))
    for (const { earlier } of layers) for (const op of earlier!.forward) machine.submit(op)
  }
}

/** Allocates a rank's tensors and builds its ops. */
export type TrainingModelBuilder = Effect.Effect<TrainingModel, OutOfMemory, Machine>

/** The phases of a training step that a profile times for each layer. */
export type ProfiledPhase = "forward" | "backward" | "optimizer"

const scalar: ReadonlyArray<number> = []

/** Bytes that a rank holds of a model, by what they are. */
export interface HeldBytes extends StorageBytes {
  readonly optimizer: number
  readonly activations: number
  readonly buffers: number
}

const learntBytes = ({ stored }: Storage): number =>
  stored.flatMap(({ learnt }) => learnt).reduce((bytes, { parameter: { sizeBytes } }) => bytes + sizeBytes, 0)

/** The optimizer's step of tensors that are stored together. */
interface ProfiledUpdate {
  readonly reads: ReadonlyArray<Tensor>
  readonly writes: ReadonlyArray<Tensor>
  /** Of the profile's time, which is of a whole layer. */
  readonly share: number
  readonly layers: ReadonlyArray<number>
}

interface ProfiledOptions {
  readonly activationBytes?: number
  /** The most that activations and gradients take together, where gradients come and go within a step. */
  readonly backwardBytes?: number | undefined
  /** Copies of what travels. */
  readonly bufferBytes?: number
  /** Gradients of a micro-batch are those of one layer at a time (default), as in PyTorch; real kernels have a place for each. */
  readonly layersShare?: boolean
  /** Told what the rank holds of the model. */
  readonly onHeld?: (held: HeldBytes) => void
  /** How the model is divided; whole on every rank where absent. */
  readonly shard?: ShardPlan | undefined
  /** Gradients are clipped to this norm. */
  readonly clipNorm?: number | undefined
  /** The loss is scaled: what that adds to a step are the ops that find the next scale. */
  readonly lossScaling?: LossScaling | undefined
  /** Passes of a step are several, of which the profile has one. */
  readonly accumulation?: Accumulation | undefined
  /** Float32 numbers that the optimizer keeps of each that is learnt: 2 (default) with AdamW. */
  readonly states?: number
}

/**
 * One timed op per layer and phase, costs looked up in the profile under {layer, phase}; an optimizer's step of several layers is as one. Activations are tokens that
 * only carry order (a profile does not say how large they are), beside one tensor of all their bytes where these are known;
 * parameters, gradients and the optimizer's state have their true sizes. Where the profile has parameters narrower than float32,
 * layers read copies in that dtype, as kernel-model.ts has it: what is learnt and averaged is free while they compute.
 */
export const profiledModel = (
  profile: Profile,
  {
    activationBytes = 0,
    backwardBytes = 0,
    bufferBytes = 0,
    layersShare = true,
    shard,
    clipNorm,
    lossScaling,
    accumulation,
    states = 2,
    onHeld
  }: ProfiledOptions = {}
): TrainingModelBuilder =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const reserve = (name: string, sizeBytes: number) =>
      sizeBytes > 0 ? machine.alloc({ name, shape: [sizeBytes], dtype: "int8" }) : Effect.void
    yield* reserve("activations", activationBytes)
    // What goes into a pass from outside is there without an op that writes it.
    const role: Role = { kind: "order" }
    let input = yield* machine.alloc({ name: "batch", shape: scalar, dtype: "float32", role })
    const inputs: Array<Tensor> = []
    const outputs: Array<Tensor> = []
    for (const layer of profile.layers) {
      const output = yield* machine.alloc({ name: `${layer.name} output`, shape: scalar, dtype: "float32" })
      inputs.push(input)
      outputs.push(output)
      input = output
    }
    const flow = yield* machine.alloc({ name: "gradient flow", shape: scalar, dtype: "float32", role })
    const specs = profile.layers.map(({ name }, index): LayerSpec => ({
      name,
      parameters: profile.parameters
        .filter(({ layer }) => layer === index)
        .map((profiled, parameter) => {
          const own = `${name} parameter ${parameter}`
          return {
            name: own,
            gradientName: `${own} gradient`,
            shape: profiled.shape,
            dtype: shard?.parameterDtype ?? layerDtype(profiled)
          }
        })
    }))
    const storage = yield* storageOf(specs, { shard, accumulation, layersShare })
    // Memory of gradients is there all the time; activations have what the two take together beyond it.
    const beside = Math.max(0, backwardBytes - storage.bytes.gradients)
    yield* reserve("activations beside gradients", beside)
    yield* reserve("buffers", bufferBytes)
    onHeld?.({
      ...storage.bytes,
      optimizer: states * learntBytes(storage),
      activations: activationBytes + beside,
      buffers: bufferBytes
    })
    const timed = (
      index: number,
      phase: ProfiledPhase,
      reads: ReadonlyArray<Tensor>,
      writes: ReadonlyArray<Tensor>,
      share = 1
    ): Op =>
      launch(`${phase} ${profile.layers[index]!.name}`, kernels.profiled, Lane.compute, reads, writes, {
        layer: index,
        phase,
        ...(share === 1 ? {} : { share })
      })
    const updates: Array<ProfiledUpdate> = []
    for (const { learnt, learns } of storage.stored) {
      const parameters = learnt.map(({ parameter }) => parameter)
      const gradients = learnt.map(({ gradient }) => gradient)
      const shadows = learnt.flatMap(({ shadow }) => shadow ?? [])
      const state: Array<Tensor> = []
      for (const { name, elements } of states > 0 ? parameters : [])
        state.push(
          yield* machine.alloc({
            name: `${name} moments`,
            shape: [states * elements],
            dtype: "float32",
            persistent: true
          })
        )
      const learning = parameters.length > 0
      updates.push({
        reads: learning ? [...gradients, ...parameters, ...state] : [flow],
        writes: learning ? [...parameters, ...state, ...shadows] : [flow],
        share: learning ? 1 / (shard?.ranks ?? 1) : 1,
        // Time that a profile charges to the optimizer of a layer without parameters is still a part of the step.
        layers: learns.filter(
          (index) => specs[index]!.parameters.length > 0 || profile.layers[index]!.optimizer.spanSeconds > 0
        )
      })
    }
    /** One launch, as of real kernels: it begins when all of its tensors are ready, and none is before the last of its layers is done. */
    const update = (some: ReadonlyArray<ProfiledUpdate>): ReadonlyArray<Submission> => {
      const taken = some.filter(({ layers }) => layers.length > 0)
      const [reads, writes] = [taken.flatMap((one) => one.reads), taken.flatMap((one) => one.writes)]
      const parts = taken.flatMap(({ layers, share }) => layers.map((index) => ({ index, share })))
      return parts.map(({ index, share }, i) => ({
        op:
          i === 0 || i === parts.length - 1
            ? timed(index, "optimizer", reads, writes, share)
            : timed(index, "optimizer", [flow], [flow], share)
      }))
    }
    const ops = storage.whole.map(({ parameters, gradients }, index) => ({
      forward: [timed(index, "forward", [inputs[index]!, ...parameters], [outputs[index]!])],
      backward: [timed(index, "backward", [flow, inputs[index]!, ...parameters], [flow, ...gradients])]
    }))
    return {
      layers: storage.layers(ops),
      begin: () => [],
      accumulation,
      update: (indices) => {
        const submissions = update(indices.map((index) => updates[index]!))
        return () => submissions
      },
      clip: yield* clipOps(storage, clipNorm, yield* scaledLoss(lossScaling)),
      gradientsFollow: storage.holders !== undefined,
      reduceDtype: storage.reduceDtype,
      peers: storage.peers
    }
  })

/**
 * The mean over the model's peers of each of `tensors`, in its place: one message, rounded to `wire` on its way where that is given.
 * Parts lie as they travel, so no hook hands them over; where a part has no other holder no program calls for its mean.
 */
export const averageOf = (
  label: string,
  { peers, gradientsFollow: inParts }: Pick<TrainingModel, "peers" | "gradientsFollow">,
  tensors: ReadonlyArray<Tensor>,
  wire: Dtype | undefined
): Op =>
  collective(label, kernels.all_reduce, Lane.inter, peers, tensors, tensors, {
    attributes: { reduce: "avg" },
    ...(wire === undefined ? {} : { wire }),
    ...(inParts ? { carries: 0 } : {})
  })

/** An op that waits for `tensors` and does nothing else; its lane goes on when they are ready. */
export const waitFor = (label: string, tensors: ReadonlyArray<Tensor>, lane: Lane = Lane.compute): Op =>
  launch(label, barrier, lane, tensors, [])

/** An op of the communication lane that waits for all of a step's ops submitted so far: what follows overlaps none of it. */
export const waitForStep = ({ layers, update }: TrainingModel): Op => {
  const updates = update([...layers.keys()])(0).map(({ op }) => op)
  const written = [...layers.flatMap(({ backward }) => backward), ...updates].flatMap(({ writes }) => writes)
  return waitFor("wait for the step", [...new Set(written)], Lane.inter)
}

/** An elementwise kernel over the parameters of a layer, one launch for each. */
export const elementwise = (
  label: string,
  kernel: Kernel,
  operands: ReadonlyArray<{ readonly reads: ReadonlyArray<Tensor>; readonly writes: ReadonlyArray<Tensor> }>,
  attributes: Readonly<Record<string, number | string | boolean>> = {}
): ReadonlyArray<Op> =>
  operands.map(({ reads, writes }) => launch(label, kernel, Lane.compute, reads, writes, attributes))
