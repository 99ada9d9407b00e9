// A model as data-parallel algorithms see it on one rank: layers with parameters, gradients and the ops of each phase.
// What the ops are (one timed op per layer, or real kernels) is the builder's choice; the algorithms cannot tell.
import * as Effect from "effect/Effect"
import { barrier } from "../../kernels/barrier.ts"
import { kernels } from "../../kernels/catalogue.ts"
import type { Kernel } from "../../kernels/kernel.ts"
import type { Scalars } from "../../kernels/scalars.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import { elementsOf, type Tensor } from "../../machine/tensor.ts"
import type { Profile } from "../../profile.ts"

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
}

/** One submission of an op that was built before; what changes from one to the next are its scalars. */
export interface Submission {
  readonly op: Op
  readonly scalars?: Scalars
}

/** What is submitted in a step, 0 for the first. The ops are the same in every step. */
export type StepSubmissions = (step: number) => ReadonlyArray<Submission>

export interface TrainingModel {
  /** In forward order; the backward pass runs them in reverse. */
  readonly layers: ReadonlyArray<TrainingLayer>
  /** Brings a step's batch, before its forward pass. */
  readonly begin: StepSubmissions
  /**
   * The optimizer's step for the parameters of these layers (indices), after their backward passes. To be asked for once for
   * each set of layers, before the first step: it builds the ops.
   */
  readonly update: (layers: ReadonlyArray<number>) => StepSubmissions
}

export const submitAll = (machine: Machine["Service"], submissions: ReadonlyArray<Submission>): void => {
  for (const { op, scalars } of submissions) machine.submit(op, scalars)
}

/** Allocates a rank's tensors and builds its ops. */
export type TrainingModelBuilder = Effect.Effect<TrainingModel, OutOfMemory, Machine>

/** The phases of a training step that a profile times for each layer. */
export type ProfiledPhase = "forward" | "backward" | "optimizer"

const scalar: ReadonlyArray<number> = []

/**
 * One timed op per layer and phase, costs looked up in the profile under {layer, phase}. Activations are tokens that
 * only carry order (a profile does not say how large they are), beside one tensor of all their bytes where these are known;
 * parameters, gradients and AdamW's two moments have their true sizes.
 */
export const profiledModel = (
  profile: Profile,
  {
    activationBytes = 0,
    gradientsLast = false
  }: { readonly activationBytes?: number; readonly gradientsLast?: boolean | undefined } = {}
): TrainingModelBuilder =>
  Effect.gen(function* () {
    const machine = yield* Machine
    if (activationBytes > 0)
      yield* machine.alloc({ name: "activations", shape: [activationBytes], dtype: "int8" })
    const layers: Array<TrainingLayer> = []
    const updates: Array<ReadonlyArray<Submission>> = []
    let input = yield* machine.alloc({ name: "batch", shape: scalar, dtype: "float32" })
    const inputs: Array<Tensor> = []
    const outputs: Array<Tensor> = []
    for (const layer of profile.layers) {
      const output = yield* machine.alloc({ name: `${layer.name} output`, shape: scalar, dtype: "float32" })
      inputs.push(input)
      outputs.push(output)
      input = output
    }
    const flow = yield* machine.alloc({ name: "gradient flow", shape: scalar, dtype: "float32" })
    for (let index = 0; index < profile.layers.length; index++) {
      const layer = profile.layers[index]!
      const parameters: Array<Tensor> = []
      const gradients: Array<Tensor> = []
      const state: Array<Tensor> = []
      for (const parameter of profile.parameters) {
        if (parameter.layer !== index) continue
        const name = `${layer.name} parameter ${parameters.length}`
        const spec = { shape: parameter.shape, dtype: "float32" as const }
        parameters.push(yield* machine.alloc({ ...spec, name, persistent: true }))
        const lasting = gradientsLast ? true : undefined
        gradients.push(yield* machine.alloc({ ...spec, name: `${name} gradient`, persistent: lasting }))
        const moments = [2 * elementsOf(parameter.shape)]
        state.push(
          yield* machine.alloc({ ...spec, name: `${name} moments`, shape: moments, persistent: true })
        )
      }
      const timed = (phase: ProfiledPhase, reads: ReadonlyArray<Tensor>, writes: ReadonlyArray<Tensor>): Op =>
        launch(`${phase} ${layer.name}`, kernels.profiled, Lane.compute, reads, writes, {
          layer: index,
          phase
        })
      // Time that a profile charges to the optimizer of a layer without parameters is still a part of the step.
      if (parameters.length > 0) {
        const op = timed("optimizer", [...gradients, ...parameters, ...state], [...parameters, ...state])
        updates.push([{ op }])
      } else updates.push(layer.optimizer.spanSeconds > 0 ? [{ op: timed("optimizer", [flow], [flow]) }] : [])
      layers.push({
        name: layer.name,
        parameters,
        gradients,
        forward: [timed("forward", [inputs[index]!, ...parameters], [outputs[index]!])],
        backward: [timed("backward", [flow, inputs[index]!, ...parameters], [flow, ...gradients])],
        refresh: []
      })
    }
    return {
      layers,
      begin: () => [],
      update: (indices) => {
        const submissions = indices.flatMap((index) => updates[index]!)
        return () => submissions
      }
    }
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
