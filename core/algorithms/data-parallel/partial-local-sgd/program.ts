// Local SGD in which each step averages only some layers' parameters, so that over a period every layer is averaged
// once (DreamDDP, arXiv:2502.11058; partial local SGD). Averaging every layer at the period's last step is Local SGD.
import * as Effect from "effect/Effect"
import { Machine, type Program } from "../../../machine/machine.ts"
import type { Op } from "../../../machine/op.ts"
import type { Dtype, Tensor } from "../../../machine/tensor.ts"
import type { Deadline } from "../plan/cost.ts"
import {
  averageOf,
  submitAll,
  submitEarlier,
  waitFor,
  waitForStep,
  type TrainingModelBuilder
} from "../training-model.ts"

/**
 * What local SGD and its partial forms average: which layers in which step of the period, and when beside
 * the local step.
 */
export interface PartialLocalSgdPlan {
  /** For each step of the period, the layers (forward index) whose parameters are averaged. */
  readonly sets: ReadonlyArray<ReadonlyArray<number>>
  /**
   * `average-then-step`: as the paper's code does, the parameters before the local step are averaged, each as soon as
   * its layer's backward pass ends, and every rank then applies its own gradient; replicas differ after the step.
   * `step-then-average`: the layer's local step comes first, and its result is averaged; replicas agree afterwards.
   */
  readonly order: "average-then-step" | "step-then-average"
  /**
   * When a layer's average must have arrived: `end-of-backward`, before the step ends (the paper's code waits for every
   * handle before `optimizer.step()`); `next-use`, before the layer's next forward pass.
   */
  readonly deadline: Deadline
  /** False: averaging begins after the whole step, as one message, and the next step waits for it (plain Local SGD). */
  readonly overlap: boolean
  /** Dtype of parameters on the wire; that of the parameters when absent. */
  readonly wire?: Dtype | undefined
}

/** Of [h * layers + l], whether layer l is averaged at step h of the period. */
const syncedAt = (sets: PartialLocalSgdPlan["sets"], averages: ReadonlyArray<Op | undefined>): Uint8Array => {
  const isSynced = new Uint8Array(sets.length * averages.length)
  sets.forEach((set, h) => {
    for (const l of set) if (averages[l] !== undefined) isSynced[h * averages.length + l] = 1
  })
  return isSynced
}

/** Layers that are looked after when one has run backward: itself, or, where gradients follow, the one before it in that pass. */
const readyLayers = (layer: number, layers: number, follow: boolean): ReadonlyArray<number> =>
  follow ? [layer + 1, ...(layer === 0 ? [0] : [])].filter((ready) => ready < layers) : [layer]

/** Steps `from` to `steps` of partial local SGD. */
export const partialLocalSgd = (
  build: TrainingModelBuilder,
  plan: PartialLocalSgdPlan,
  steps: number,
  from = 0
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const model = yield* build
    const { layers, begin, clip } = model
    const period = plan.sets.length
    const average = (what: string, parameters: ReadonlyArray<Tensor>): Op | undefined =>
      parameters.length === 0 ? undefined : averageOf(`average ${what}`, model, parameters, plan.wire)
    const averages = layers.map(({ name, parameters }) => average(name, parameters))
    // What is not sent layer by layer, to hide behind the backward pass, travels as one message.
    const wholes = plan.sets.map((set, h) =>
      average(
        period === 1 || set.length === layers.length ? "all layers" : `set ${h}`,
        set.toSorted((a, b) => b - a).flatMap((l) => layers[l]!.parameters)
      )
    )
    const isSynced = syncedAt(plan.sets, averages)
    const arrivals = plan.sets.map((set, h) =>
      waitFor(
        `wait for averages ${h}`,
        set.toSorted((a, b) => a - b).flatMap((l) => layers[l]!.parameters)
      )
    )
    const stepDone = waitForStep(model)
    const updateAll = model.update([...layers.keys()])
    const updates = layers.map((_, l) => model.update([l]))
    const stepFirst = plan.order === "step-then-average"
    const readyAfter = layers.map((_, l) => readyLayers(l, layers.length, stepFirst && model.gradientsFollow))
    const atNextUse = plan.deadline === "next-use"
    // What is clipped by the norm of all gradients takes its step when the last of them is there.
    const overlap = plan.overlap && (clip.length === 0 || !stepFirst)
    // Where the average comes last, what a layer reads must be brought up to it before its next forward pass.
    const averageIsLast = stepFirst || !overlap
    const stale = new Uint8Array(layers.length)
    const averagedIn = (step: number): void => {
      if (!averageIsLast) return
      const base = (step % period) * layers.length
      for (let l = 0; l < layers.length; l++) stale[l]! |= isSynced[base + l]!
    }
    const refresh = (l: number) => {
      if (stale[l] === 0) return
      stale[l] = 0
      for (const op of layers[l]!.refresh) machine.submit(op)
    }
    // With averages first and due at next use, a layer's local step is taken just before its next forward pass.
    const stepPending = new Uint8Array(layers.length)
    const isPending = overlap && !stepFirst && atNextUse
    if (from > 0) {
      if (isPending) stepPending.fill(1)
      averagedIn(from - 1)
    }

    for (let step = from; step < steps; step++) {
      const h = step % period
      const base = h * layers.length
      submitAll(machine, begin(step))
      for (let l = 0; l < layers.length; l++) {
        const layer = layers[l]!
        if (stepPending[l] === 1) {
          stepPending[l] = 0
          if (l === 0) for (const op of clip) machine.submit(op)
          submitAll(machine, updates[l]!(step - 1))
        }
        refresh(l)
        for (const op of layer.forward) machine.submit(op)
      }
      submitEarlier(machine, model, step)
      for (let l = layers.length - 1; l >= 0; l--) {
        const layer = layers[l]!
        for (const op of layer.backward) machine.submit(op)
        if (!overlap) continue
        for (const ready of readyAfter[l]!) {
          // As soon as its gradient is there, a layer takes its local step, synchronised or not.
          if (stepFirst) submitAll(machine, updates[ready]!(step))
          if (isSynced[base + ready] === 1) machine.submit(averages[ready]!)
        }
      }
      if (overlap && !stepFirst && !atNextUse) machine.submit(arrivals[h]!)
      if (!overlap || (!stepFirst && !atNextUse)) {
        for (const op of clip) machine.submit(op)
        submitAll(machine, updateAll(step))
      } else if (isPending) stepPending.fill(1)
      if (!overlap) {
        machine.submit(stepDone)
        const whole = wholes[h]
        if (whole !== undefined) machine.submit(whole)
      }
      // Stepping first, or without overlap, the averages themselves end the step.
      averagedIn(step)
      if (averageIsLast && !atNextUse) machine.submit(arrivals[h]!)
      yield* machine.endStep
    }
    // No forward pass follows to take the steps that are still due.
    for (let l = 0; l < layers.length; l++) {
      if (stepPending[l] === 0) continue
      if (l === 0) for (const op of clip) machine.submit(op)
      submitAll(machine, updates[l]!(steps - 1))
    }
    for (let l = 0; l < layers.length; l++) refresh(l)
    yield* machine.drain
  })
