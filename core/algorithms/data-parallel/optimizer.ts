// The inner optimizer of a training run: its settings, its state beside a parameter, and the ops that take a step.
import * as Effect from "effect/Effect"
import { cosine } from "../../elementary.ts"
import { kernels } from "../../kernels/catalogue.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Role, Tensor } from "../../machine/tensor.ts"
import type { StepSubmissions } from "./training-model.ts"

/** Linear warm-up from 0 to the peak, then decay to a share of it. */
export interface RateSchedule {
  /** 0: none. */
  readonly warmupSteps: number
  /** Step at which the decay has ended; Infinity: it never begins. */
  readonly decayUntilStep: number
  /** Share of the peak that is left then. */
  readonly finalShare: number
  /** A straight line, or half a cosine. Default linear. */
  readonly decay?: "linear" | "cosine" | undefined
}

/** With PyTorch's names and defaults; see `sgd` and `adamw` of the kernel catalogue for the update rules. */
export type Optimizer = {
  readonly schedule?: RateSchedule | undefined
  /** What weight decay acts on: all parameters, as in PyTorch, or matrices alone, sparing biases and norms. Default all. */
  readonly decays?: "all" | "matrices" | undefined
} & (
  | {
      readonly name: "sgd"
      readonly learningRate: number
      readonly momentum?: number
      readonly weightDecay?: number
    }
  | {
      readonly name: "adamw"
      readonly learningRate: number
      readonly beta1?: number
      readonly beta2?: number
      readonly epsilon?: number
      readonly weightDecay?: number
    }
)

/** The rate of a step, 0 for the first. */
export const learningRateAt = ({ learningRate, schedule }: Optimizer, step: number): number => {
  if (schedule === undefined) return learningRate
  const { warmupSteps, decayUntilStep, finalShare, decay } = schedule
  if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps
  if (decayUntilStep === Infinity) return learningRate
  const left = Math.max(0, decayUntilStep - step) / Math.max(1, decayUntilStep - warmupSteps)
  const share = decay === "cosine" ? (1 - cosine(left)) / 2 : left
  return learningRate * (finalShare + (1 - finalShare) * share)
}

/** A parameter with what its optimizer reads and writes beside it. */
export interface Optimized {
  /** What is learnt: float32 masters, where layers read a narrower `shadow`. */
  readonly parameter: Tensor
  readonly gradient: Tensor
  /** AdamW's two moments, SGD's momentum. */
  readonly state: ReadonlyArray<Tensor>
  readonly shadow?: Tensor | undefined
}

/** What the optimizer keeps of each parameter, by name: as many float32 numbers each as the parameter has. */
export const statesOf = (optimizer: Optimizer): ReadonlyArray<string> => {
  if (optimizer.name === "adamw") return ["first moment", "second moment"]
  return (optimizer.momentum ?? 0) === 0 ? [] : ["momentum"]
}

/** Allocates what the optimizer keeps of `parameter`. */
export const optimizerState = (
  optimizer: Optimizer,
  parameter: Tensor,
  gradient: Tensor,
  shadow?: Tensor
): Effect.Effect<Optimized, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const state: Array<Tensor> = []
    for (const name of statesOf(optimizer)) {
      const own = `${parameter.name} ${name}`
      const { shape } = parameter
      state.push(yield* machine.alloc({ name: own, shape, dtype: "float32", persistent: true }))
    }
    return { parameter, gradient, state, shadow }
  })

/**
 * The optimizer's step for these parameters: one op, or two where some are spared weight decay, built once and told its rate
 * and its number (1 for the first) at each launch. `scaling`: of gradients of a scaled loss, what `loss_scale` keeps.
 */
export const optimizerUpdate = (
  optimizer: Optimizer,
  label: string,
  parameters: ReadonlyArray<Optimized>,
  { role, scaling }: { readonly role?: Role; readonly scaling?: Tensor | undefined } = {}
): StepSubmissions => {
  const { name, schedule: _, learningRate: __, decays = "all", ...attributes } = optimizer
  const matrices = parameters.filter(({ parameter }) => parameter.shape.length > 1)
  const vectors = parameters.filter(({ parameter }) => parameter.shape.length <= 1)
  const groups: ReadonlyArray<readonly [ReadonlyArray<Optimized>, Attributes]> =
    decays === "all"
      ? [[parameters, attributes]]
      : [
          [matrices, attributes],
          [vectors, { ...attributes, weightDecay: 0 }]
        ]
  const ops = groups
    .filter(([group]) => group.length > 0)
    .map(([group, own]) => listOp(label, name, group, own, { role, scaling }))
  return (step) => {
    const scalars = [learningRateAt(optimizer, step), step + 1]
    return ops.map((op) => ({ op, scalars }))
  }
}

/** One launch for all of `parameters`, as the kernel takes lists: all of one operand, then all of the next. */
const listOp = (
  label: string,
  kernel: Optimizer["name"],
  parameters: ReadonlyArray<Optimized>,
  attributes: Attributes,
  { role, scaling }: { readonly role: Role | undefined; readonly scaling: Tensor | undefined }
): Op => {
  const own = parameters.map(({ parameter }) => parameter)
  const gradients = parameters.map(({ gradient }) => gradient)
  const state = parameters[0]!.state.flatMap((_, index) => parameters.map((one) => one.state[index]!))
  const shadows = parameters.flatMap(({ shadow }) => (shadow === undefined ? [] : [shadow]))
  return launch(
    label,
    kernels[kernel],
    Lane.compute,
    [...own, ...gradients, ...state, ...(scaling === undefined ? [] : own.map(() => scaling))],
    [...own, ...state, ...shadows],
    {
      ...attributes,
      ...(shadows.length === 0 ? {} : { shadow: true }),
      ...(scaling === undefined ? {} : { scaled: true })
    },
    role
  )
}
