// A scenario ready to be trained for real: its program, told of losses as they come, and what can be said of it. Knows no device.
import type { Program } from "../core/machine/machine.ts"
import type { Tensor, TensorData } from "../core/machine/tensor.ts"
import type { CollectiveAlgorithm } from "../core/wire/network.ts"
import type { World } from "../core/world.ts"
import type { SavedWeights } from "../traces/weights-file.ts"
import type { LossReport } from "../core/algorithms/loss-report.ts"
import type { Capacity } from "./runnable.ts"

/** What a person says of a training run beside the scenario. */
export interface TrainingChoices {
  /** Default: the scenario's. */
  readonly steps?: number | undefined
  /** Steps between evaluations on held-out text; default: at the end. */
  readonly evaluateEvery?: number | undefined
  /** A profile of the same model to plan with instead of estimates. */
  readonly planFrom?: string | undefined
}

export interface Trainable {
  readonly world: World
  readonly collectives: CollectiveAlgorithm
  readonly capacityBytes?: Capacity | undefined
  readonly steps: number
  /** Tokens of one rank's batch. */
  readonly batchTokens: number
  /** Trainable numbers, tied weights once; of a model that learns a text. */
  readonly parameters?: number
  /** Tokens to train on, and held out; where a text is learnt. */
  readonly text?: { readonly trainTokens: number; readonly heldOutTokens: number }
  program(report: LossReport): Program<unknown>
  /** What rank 0 has learnt, looked at when the run has ended and its tensors still hold their values. */
  weights?(valuesOf: (rank: number, tensor: Tensor) => TensorData): SavedWeights
}
