// Gradient accumulation: a step's gradients are the mean over several micro-batches, each with passes of its own. Kept as a
// running mean in float32, so that no loss has to be divided and one step is that of the larger batch. Knows no algorithm.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { Submission, TrainingLayer } from "./training-model.ts"

export interface Accumulation {
  /** Micro-batches of a step, at least 2. */
  readonly microBatches: number
  /**
   * Gradients travel once, when they are those of the whole step (PyTorch's `no_sync` around all others), or after each
   * micro-batch, where what is kept between them are parts.
   */
  readonly synchronize: "last" | "each"
}

/** Ops of a micro-batch before a step's last, by its index. */
export type EarlierSubmissions = (index: number) => ReadonlyArray<Submission>

interface RunningMean {
  readonly earlier: EarlierSubmissions
  readonly last: ReadonlyArray<Op>
}

/** Keeps the mean of what micro-batches leave in the first of each two tensors in the second. */
export const runningMean = (
  label: string,
  lane: Lane,
  { microBatches }: Accumulation,
  pairs: ReadonlyArray<readonly [from: Tensor, mean: Tensor]>
): RunningMean => {
  const first = pairs.map(([from, mean]): Submission => ({
    op: launch(label, kernels.copy, lane, [from], [mean])
  }))
  const mix = (attributes?: { readonly weight: number }) =>
    pairs.map(([from, mean]) => launch(label, kernels.lerp, lane, [mean, from], [mean], attributes))
  // The weight of those between is told at each launch, so that ops are as many whatever the number of micro-batches.
  const more = mix()
  return {
    earlier: (index) =>
      index === 0 ? first : more.map((op): Submission => ({ op, scalars: [1 / (index + 1)] })),
    last: mix({ weight: 1 / microBatches })
  }
}

/** A model's layers that also keep the mean of their passes' losses, where a step has several. */
export const withMeanLoss = (
  layers: ReadonlyArray<TrainingLayer>,
  passLoss: Tensor,
  accumulation: Accumulation | undefined
): Effect.Effect<
  {
    readonly layers: ReadonlyArray<TrainingLayer>
    readonly loss: Tensor
    /** Leaves the loss of a pass by itself. */
    readonly ofOnePass: ReadonlyArray<Submission>
  },
  OutOfMemory,
  Machine
> =>
  Effect.gen(function* () {
    if (accumulation === undefined) return { layers, loss: passLoss, ofOnePass: [] }
    const machine = yield* Machine
    const { shape } = passLoss
    const loss = yield* machine.alloc({ name: "loss of a step", shape, dtype: "float32" })
    const mean = runningMean("mean loss", Lane.compute, accumulation, [[passLoss, loss]])
    const { earlier, backward, ...last } = layers.at(-1)!
    // A pass's loss is there when its backward pass begins.
    const learning = {
      ...last,
      backward: [...mean.last, ...backward],
      earlier: earlier && {
        ...earlier,
        backward: (index: number) => [...mean.earlier(index), ...earlier.backward(index)]
      }
    }
    return { layers: [...layers.slice(0, -1), learning], loss, ofOnePass: mean.earlier(0) }
  })
