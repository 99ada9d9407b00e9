// The inner optimizer of a training run: its settings, its state beside a parameter, and the op that takes a step.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"

/** Linear warm-up from 0 to the peak, then linear decay to a share of it. */
export interface RateSchedule {
  /** 0: none. */
  readonly warmupSteps: number
  /** Step at which the decay has ended; Infinity: it never begins. */
  readonly decayUntilStep: number
  /** Share of the peak that is left then. */
  readonly finalShare: number
}

/** With PyTorch's names and defaults; see `sgd` and `adamw` of the kernel catalogue for the update rules. */
export type Optimizer = { readonly schedule?: RateSchedule | undefined } & (
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
  const { warmupSteps, decayUntilStep, finalShare } = schedule
  if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps
  if (decayUntilStep === Infinity) return learningRate
  const left = Math.max(0, decayUntilStep - step) / Math.max(1, decayUntilStep - warmupSteps)
  return learningRate * (finalShare + (1 - finalShare) * left)
}

/** Allocates what the optimizer keeps of `parameter`; the op of each step (0 for the first) follows. */
export const optimizerStep = (
  optimizer: Optimizer,
  label: string,
  parameter: Tensor,
  gradient: Tensor
): Effect.Effect<(step: number) => Op, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const state: Array<Tensor> = []
    const names =
      optimizer.name === "adamw"
        ? ["first moment", "second moment"]
        : (optimizer.momentum ?? 0) === 0
          ? []
          : ["momentum"]
    for (const name of names) {
      state.push(
        yield* machine.alloc({
          name: `${parameter.name} ${name}`,
          shape: parameter.shape,
          dtype: "float32"
        })
      )
    }
    const { name, schedule, ...attributes } = optimizer
    const reads = [parameter, gradient, ...state]
    const writes = [parameter, ...state]
    const at = (step: number): Op =>
      launch(label, kernels[name], Lane.compute, reads, writes, {
        ...attributes,
        learningRate: learningRateAt(optimizer, step),
        step: step + 1
      })
    // SGD is the same op every step, but for the first of a momentum buffer.
    if (name === "adamw" || schedule !== undefined) return at
    const [first, later] = [at(0), at(1)]
    return (step) => (step === 0 ? first : later)
  })
