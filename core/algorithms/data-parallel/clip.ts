// Clipping by the global norm: between the last gradient of a step and the first use of any, all are scaled so that together
// they are no longer than a limit. No `read`: the norm stays on the device (torch.nn.utils.clip_grad_norm_).
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { ScaledLoss } from "./loss-scale.ts"
import type { Storage } from "./storage.ts"

/**
 * The ops that clip what a rank learns by: of a model in parts, by the norm of the whole. None without a limit. Gradients are
 * clipped where they lie; those of a scaled loss as the optimizer reads them, after their norm has said whether the step is taken and
 * what the next scale is.
 */
export const clipOps = (
  { stored, holders }: Storage,
  clipNorm: number | undefined,
  scaled?: ScaledLoss | undefined
): Effect.Effect<ReadonlyArray<Op>, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const gradients = stored.flatMap(({ learnt }) => learnt.map(({ gradient }) => gradient))
    if ((clipNorm === undefined && scaled === undefined) || gradients.length === 0) return []
    const machine = yield* Machine
    const sum = yield* machine.alloc({ name: "squared gradient norm", shape: [], dtype: "float32" })
    return [
      launch("gradient norm", kernels.squared_norm, Lane.compute, gradients, [sum]),
      ...(holders === undefined
        ? []
        : [collective("sum of gradient norms", kernels.all_reduce, Lane.intra, holders, [sum], [sum])]),
      scaled === undefined
        ? launch("clip gradients", kernels.clip_by_norm, Lane.compute, [sum, ...gradients], gradients, {
            maxNorm: clipNorm!
          })
        : scaleOp(scaled, sum, clipNorm)
    ]
  })

const scaleOp = (
  { state, growthInterval, growthFactor, backoffFactor }: ScaledLoss,
  sum: Tensor,
  maxNorm = 0
): Op =>
  launch("loss scale", kernels.loss_scale, Lane.compute, [sum, state], [state], {
    maxNorm,
    growthInterval,
    growthFactor,
    backoffFactor
  })
