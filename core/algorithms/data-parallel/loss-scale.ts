// Dynamic loss scaling (arXiv:1710.03740): gradients of a loss times a scale, so that few of them fall below float16's smallest
// number; a scale that falls when some have overflowed, whose step is then skipped, and grows when none have for a while. All of it on
// the device, without a `read`. Each rank has a scale of its own; ranks that average gradients see the same and go on alike.
import * as Effect from "effect/Effect"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { lossScaling } from "../../models/loss-scale.ts"

/** As torch.amp.GradScaler has them, with its defaults. */
export interface LossScaling {
  /** Of the first step. */
  readonly initial: number
  /** Steps without a skipped one after which it grows. */
  readonly growthInterval: number
  readonly growthFactor: number
  readonly backoffFactor: number
}

/** A rank's scale, with what `loss_scale` keeps beside it. */
export interface ScaledLoss extends LossScaling {
  readonly state: Tensor
}

/** Allocates the scale; undefined where no loss is scaled. */
export const scaledLoss = (
  scaling: LossScaling | undefined
): Effect.Effect<ScaledLoss | undefined, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    if (scaling === undefined) return undefined
    const machine = yield* Machine
    const { name, shape, dtype } = lossScaling
    const initial = () => Float32Array.of(scaling.initial, 0, 0, 0)
    return { ...scaling, state: yield* machine.alloc({ name, shape, dtype, persistent: true, initial }) }
  })
