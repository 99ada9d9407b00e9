// Synchronous data-parallel SGD: every step, gradients are averaged over all ranks in buckets while the backward pass
// still runs (PyTorch DistributedDataParallel; wait-free backpropagation). One bucket that is sent after the backward
// pass is plain S-SGD.
import * as Effect from "effect/Effect"
import { Machine, type Program } from "../../../machine/machine.ts"
import type { Op } from "../../../machine/op.ts"
import type { Dtype, Tensor } from "../../../machine/tensor.ts"
import { gradientWire } from "../algorithm.ts"
import type { Deadline } from "../plan/cost.ts"
import {
  averageOf,
  submitAll,
  submitEarlier,
  waitFor,
  waitForStep,
  type TrainingModelBuilder
} from "../training-model.ts"

/** One parameter's gradient: a layer's, of so many numbers. A profile's order within a layer need not be the model's. */
export interface GradientRef {
  readonly layer: number
  readonly elements: number
}

/** What S-SGD and DDP send: which gradients together, when, and in which dtype. */
export interface DdpPlan {
  /** Gradients that travel together, in the order they become ready. Every gradient is in exactly one bucket. */
  readonly buckets: ReadonlyArray<ReadonlyArray<GradientRef>>
  /** False: buckets are sent after the whole backward pass. */
  readonly overlap: boolean
  /**
   * `end-of-backward`: the optimizer waits for every bucket, as PyTorch's does. `next-use`: a layer's optimizer step is
   * taken just before its next forward pass, so only its own bucket must have arrived by then.
   */
  readonly deadline: Deadline
  /** Dtype of gradients on the wire; that of the gradients when absent. */
  readonly wire?: Dtype | undefined
}

/** Takes the gradient out of those of its layer that are in no bucket yet. Throws RangeError where the plan is another model's. */
const taken = (left: Array<Tensor>, { layer, elements }: GradientRef): Tensor => {
  const at = left.findIndex((gradient) => gradient.elements === elements)
  if (at < 0) throw new RangeError(`layer ${layer} has no further gradient of ${elements} numbers`)
  return left.splice(at, 1)[0]!
}

/** Steps `from` to `steps` of data-parallel training. */
export const distributedDataParallel = (
  build: TrainingModelBuilder,
  plan: DdpPlan,
  steps: number,
  from = 0
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const model = yield* build
    const { layers, begin, clip } = model

    // A bucket leaves when the backward pass of its earliest layer ends: the last of its gradients to become ready.
    const sends: Array<Array<Op>> = layers.map(() => [])
    const all: Array<Tensor> = []
    // Buckets are sent in order, as DDP's reducer does: one waits for those before it.
    let ready = layers.length - 1
    const left = layers.map(({ gradients }) => [...gradients])
    plan.buckets.forEach((bucket, index) => {
      const gradients = bucket.map((ref) => taken(left[ref.layer]!, ref))
      all.push(...gradients)
      // Of a bucket all gradients are of one dtype.
      const wire = gradientWire(gradients[0]!.dtype, plan.wire, model.reduceDtype)
      const op = averageOf(`all-reduce bucket ${index}`, model, gradients, wire)
      ready = plan.overlap ? Math.min(ready, ...bucket.map(({ layer }) => layer)) : 0
      sends[ready]!.push(op)
    })
    const allArrived = waitFor("wait for buckets", all)
    const backwardDone = waitForStep(model)
    const atNextUse = plan.deadline === "next-use"
    const updateAll = model.update([...layers.keys()])
    const updates = layers.map((_, l) => model.update([l]))
    const send = (l: number): void => {
      if (l === 0 && !plan.overlap) machine.submit(backwardDone)
      for (const op of sends[l]!) machine.submit(op)
    }
    // PyTorch's backward pass waits for its buckets, of whichever micro-batch they are.
    const sendEarlier = (l: number): void => {
      send(l)
      if (l === 0 && !atNextUse) machine.submit(allArrived)
    }
    const eachTravels = model.accumulation?.synchronize === "each"

    for (let step = from; step < steps; step++) {
      submitAll(machine, begin(step))
      for (let l = 0; l < layers.length; l++) {
        const layer = layers[l]!
        if (atNextUse && step > 0) {
          if (l === 0) for (const op of clip) machine.submit(op)
          submitAll(machine, updates[l]!(step - 1))
        }
        for (const op of layer.forward) machine.submit(op)
      }
      submitEarlier(machine, model, step, eachTravels ? sendEarlier : undefined)
      for (let l = layers.length - 1; l >= 0; l--) {
        for (const op of layers[l]!.backward) machine.submit(op)
        send(l)
      }
      if (!atNextUse) {
        machine.submit(allArrived)
        for (const op of clip) machine.submit(op)
        submitAll(machine, updateAll(step))
      }
      yield* machine.endStep
    }
    // No forward pass follows to take the last step's updates; they are not part of that step, as of no other.
    if (atNextUse && steps > 0) {
      for (const op of clip) machine.submit(op)
      submitAll(machine, updateAll(steps - 1))
    }
    yield* machine.drain
  })
