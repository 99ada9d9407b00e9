// A scenario ready to be trained for real: its program, told of losses as they come, and what can be said of it. Knows no device.
import type { Program } from "../core/machine/machine.ts"
import type { Tensor, TensorData } from "../core/machine/tensor.ts"
import type { CollectiveAlgorithm } from "../core/wire/network.ts"
import type { World } from "../core/world.ts"
import type { SavedWeights } from "../traces/weights-file.ts"
import type { Snapshots } from "../core/machine/snapshots.ts"
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
  /** A file of weights to begin with instead of random ones. */
  readonly weights?: string | undefined
}

/** What a run that goes on from another's checkpoint must have in common with it. */
export interface Continuation {
  /** What decides what is learnt, as the scenario has it, but for what the next two tell. */
  readonly run: Readonly<Record<string, unknown>>
  /** What the algorithm has planned. */
  readonly plan: unknown
  /** Where batches come from: enough to tell another text from this one. */
  readonly data: unknown
  /** Why another number of ranks cannot go on from it; undefined: it can. */
  readonly fixedRanks: string | undefined
}

/** A scenario that learns, ready for `exec train`. */
export interface Trainable {
  readonly world: World
  readonly collectives: CollectiveAlgorithm
  readonly capacityBytes?: Capacity | undefined
  readonly steps: number
  /** Steps from one checkpoint to the next, where the scenario says. */
  readonly checkpointEvery?: number | undefined
  /** Tokens of one rank's batch. */
  readonly batchTokens: number
  /** Trainable numbers, tied weights once, without what pads a vocabulary; of a model that learns a text. */
  readonly parameters?: number
  /** Tokens to train on, and held out; where a text is learnt. */
  readonly text?: { readonly trainTokens: number; readonly heldOutTokens: number }
  /** Told of losses; where `snapshots` are given, it goes on from where they say, and hands them what it must find again. */
  program(report: LossReport, snapshots?: Snapshots): Program<unknown>
  readonly continuation: Continuation
  /** Ranks that hold the weights together, where more than one do: `weights` looks at all of them. */
  readonly holders?: number | undefined
  /** What rank 0 has learnt, looked at when the run has ended and its tensors still hold their values. */
  weights?(valuesOf: (rank: number, tensor: Tensor) => TensorData): SavedWeights
}
