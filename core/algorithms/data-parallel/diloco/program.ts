// DiLoCo (arXiv:2311.08105) and Streaming DiLoCo (arXiv:2501.18512): ranks train on their own for H steps; then the
// change of each fragment of layers (the pseudo-gradient) is averaged and an outer Nesterov optimizer steps on it.
// DiLoCo is one fragment of all layers that is applied at once; Streaming DiLoCo sends P fragments at offsets, tau steps
// before they are applied, and mixes the result with what the rank has learnt meanwhile.
import * as Effect from "effect/Effect"
import { kernels } from "../../../kernels/catalogue.ts"
import { Machine, type Program } from "../../../machine/machine.ts"
import type { Op } from "../../../machine/op.ts"
import type { Dtype, Tensor } from "../../../machine/tensor.ts"
import type { Deadline } from "../plan/cost.ts"
import { leavesAfter, type FragmentPlan } from "../plan/fragments.ts"
import {
  averageOf,
  elementwise,
  submitAll,
  submitEarlier,
  waitFor,
  type TrainingModelBuilder
} from "../training-model.ts"

/**
 * What DiLoCo (arXiv:2311.08105) and Streaming DiLoCo (arXiv:2501.18512) send, and how what comes back is
 * applied.
 */
export interface DilocoPlan {
  /** Which layers are sent after which step, when they are applied, and how much of the local weights survives. */
  readonly schedule: FragmentPlan
  readonly outerLearningRate: number
  readonly outerMomentum: number
  /** With a delay of 0: `end-of-backward` lets the next step wait for everything, `next-use` only each layer. */
  readonly deadline: Deadline
  /** False: pseudo-gradients are sent after the whole step, a fragment as one message, instead of as each layer's last backward pass ends. */
  readonly overlap: boolean
  /** Dtype of pseudo-gradients on the wire (FP4 in the paper); accumulation is in float32. */
  readonly wire?: Dtype | undefined
}

interface OuterLayer {
  readonly capture: ReadonlyArray<Op>
  readonly apply: ReadonlyArray<Op>
  readonly deltas: ReadonlyArray<Tensor>
}

/** Inner steps of DiLoCo, as many as `steps` less the `from` that were taken before. */
export const diloco = (
  build: TrainingModelBuilder,
  plan: DilocoPlan,
  steps: number,
  from = 0
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const model = yield* build
    const { layers, begin, update, clip } = model
    const { schedule } = plan
    // What is clipped by the norm of all gradients takes its step when the last of them is there.
    const overlap = plan.overlap && clip.length === 0
    const outer: Array<OuterLayer | undefined> = []
    for (const layer of layers) {
      if (layer.parameters.length === 0) {
        outer.push(undefined)
        continue
      }
      const deltas: Array<Tensor> = []
      const capture: Array<Op> = []
      const apply: Array<Op> = []
      for (const parameter of layer.parameters) {
        const like = { shape: parameter.shape, dtype: "float32", persistent: true } as const
        const global = yield* machine.alloc({ ...like, name: `${parameter.name} outer` })
        const momentum = yield* machine.alloc({ ...like, name: `${parameter.name} outer momentum` })
        const delta = yield* machine.alloc({ ...like, name: `${parameter.name} pseudo-gradient` })
        deltas.push(delta)
        if (from === 0) {
          for (const op of elementwise(`copy ${parameter.name}`, kernels.copy, [
            { reads: [parameter], writes: [global] }
          ])) {
            machine.submit(op)
          }
        }
        capture.push(
          ...elementwise(`pseudo-gradient ${layer.name}`, kernels.subtract, [
            { reads: [global, parameter], writes: [delta] }
          ])
        )
        apply.push(
          ...elementwise(
            `outer step ${layer.name}`,
            kernels.outer_nesterov,
            [{ reads: [global, momentum, delta], writes: [global, momentum] }],
            { learningRate: plan.outerLearningRate, momentum: plan.outerMomentum }
          ),
          ...elementwise(
            `apply ${layer.name}`,
            kernels.lerp,
            [{ reads: [global, parameter], writes: [parameter] }],
            { weight: schedule.localShare }
          )
        )
      }
      apply.push(...layer.refresh)
      outer.push({ capture, apply, deltas })
    }
    const average = (what: string, deltas: ReadonlyArray<Tensor>): Op =>
      averageOf(`average ${what}`, model, deltas, plan.wire)
    // Layer by layer where that hides them behind the backward pass; otherwise a fragment is one message.
    const sendLayer = layers.map(({ name }, l) =>
      overlap && outer[l] !== undefined ? average(name, outer[l].deltas) : undefined
    )
    const sendFragment = schedule.fragments.map((fragment, p) => {
      const deltas = fragment.layers.toReversed().flatMap((l) => outer[l]?.deltas ?? [])
      return overlap || deltas.length === 0 ? undefined : average(`fragment ${p}`, deltas)
    })
    const waits = schedule.fragments.map((fragment, p) =>
      waitFor(
        `wait for fragment ${p}`,
        fragment.layers.flatMap((l) => outer[l]?.deltas ?? [])
      )
    )
    // What is there at once is applied at once, so that a model in parts is gathered ahead; of messages for each layer, one by one.
    const atOnce = !overlap || plan.deadline === "end-of-backward"
    const arrivingWith = layers.map((_, l) => [l])
    if (atOnce)
      for (const fragment of schedule.fragments) {
        const learning = fragment.layers.filter((l) => outer[l] !== undefined).toSorted((a, b) => a - b)
        for (const l of learning) arrivingWith[l] = learning
      }
    const all = [...layers.keys()]
    const updateAll = update(all)
    const updates = layers.map((_, l) => update([l]))
    // With overlap, layers that leave have taken their step before; no two fragments leave after the same step.
    const updateWithout = schedule.fragments.map((fragment) =>
      update(all.filter((l) => outer[l] === undefined || !fragment.layers.includes(l)))
    )
    // Per layer, the step after which its averaged pseudo-gradient is due; -1: nothing is on its way.
    const due = new Int32Array(layers.length).fill(-1)
    const sending = new Uint8Array(layers.length)
    // What was sent before and is not applied yet.
    for (let step = Math.max(1, from - schedule.delaySteps); step <= from; step++) {
      for (const fragment of schedule.fragments) {
        if (!leavesAfter(schedule, fragment, step)) continue
        for (const l of fragment.layers) if (outer[l] !== undefined) due[l] = step + schedule.delaySteps
      }
    }

    for (let step = from + 1; step <= steps; step++) {
      submitAll(machine, begin(step - 1))
      for (let l = 0; l < layers.length; l++) {
        if (due[l]! >= 0 && step > due[l]!)
          for (const other of arrivingWith[l]!) {
            due[other] = -1
            for (const op of outer[other]!.apply) machine.submit(op)
          }
        for (const op of layers[l]!.forward) machine.submit(op)
      }
      submitEarlier(machine, model, step - 1)
      const leaves = schedule.fragments.map((fragment) => leavesAfter(schedule, fragment, step))
      sending.fill(0)
      schedule.fragments.forEach((fragment, p) => {
        if (leaves[p]) for (const l of fragment.layers) if (outer[l] !== undefined) sending[l] = 1
      })
      const capture = (l: number): void => {
        for (const op of outer[l]!.capture) machine.submit(op)
        due[l] = step + schedule.delaySteps
      }
      for (let l = layers.length - 1; l >= 0; l--) {
        const layer = layers[l]!
        for (const op of layer.backward) machine.submit(op)
        if (overlap && sending[l] === 1) {
          submitAll(machine, updates[l]!(step - 1))
          capture(l)
          machine.submit(sendLayer[l]!)
        }
      }
      for (const op of clip) machine.submit(op)
      const early = overlap ? leaves.indexOf(true) : -1
      submitAll(machine, (early < 0 ? updateAll : updateWithout[early]!)(step - 1))
      if (!overlap) {
        for (let l = layers.length - 1; l >= 0; l--) if (sending[l] === 1) capture(l)
        for (const [p, send] of sendFragment.entries())
          if (leaves[p] && send !== undefined) machine.submit(send)
      }
      if (plan.deadline === "end-of-backward") {
        // What must be applied after this step is waited for here rather than at each layer's next forward pass.
        schedule.fragments.forEach((fragment, p) => {
          if (fragment.layers.some((l) => due[l] === step)) machine.submit(waits[p]!)
        })
      }
      yield* machine.endStep
    }
    for (let l = 0; l < layers.length; l++)
      if (due[l]! >= 0) for (const op of outer[l]!.apply) machine.submit(op)
    yield* machine.drain
  })
