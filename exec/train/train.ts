// Trains a model of real kernels with any data-parallel program, and keeps what can be told of it at any moment: the loss of
// every step, the loss on held-out text, tokens per second. Knows nothing of scenarios, files or which algorithm it runs.
import * as Effect from "effect/Effect"
import type { KernelModelBuilder } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed, type Observation } from "../../core/algorithms/data-parallel/observe.ts"
import type { TrainingModelBuilder } from "../../core/algorithms/data-parallel/training-model.ts"
import type { MachineError, Program } from "../../core/machine/machine.ts"
import { executeThen, type Ended, type Execution, type ExecutionResult } from "../execute.ts"
import { Curve, type CurvePoint } from "./curve.ts"

export interface TrainingOptions extends Omit<Execution<void>, "program"> {
  readonly build: KernelModelBuilder
  readonly program: (build: TrainingModelBuilder, steps: number) => Program<void>
  readonly steps: number
  /** Tokens of one rank's batch. */
  readonly batchTokens: number
  /** Mean over so many held-out batches, after every so many steps and at the end. */
  readonly evaluation?: { readonly everySteps: number; readonly batches: number } | undefined
  /** Told of every step that all ranks have taken. */
  readonly onStep?: ((point: CurvePoint) => void) | undefined
  /** Sees the run when it has ended, while its tensors can still be looked at. */
  readonly atEnd?: ((ended: Ended<void>) => void) | undefined
}

/** What has been learnt so far. */
export interface Learnt {
  /** Steps that every rank has taken. */
  readonly stepsDone: number
  readonly tokens: number
  /** From the first rank's beginning to the last of these steps, evaluations included. */
  readonly seconds: number
  readonly tokensPerSecond: number
  /** Mean over ranks of the training loss of each step, by number of steps taken. */
  readonly losses: ReadonlyArray<CurvePoint>
  /** Mean over ranks of the loss on held-out text, each rank with its own parameters. */
  readonly heldOutLosses: ReadonlyArray<CurvePoint>
}

export interface Training {
  readonly run: Effect.Effect<ExecutionResult<void>, MachineError>
  /** May be asked before, during and after the run, and after one that failed or was interrupted. */
  readonly learnt: () => Learnt
}

/** A training run that has not begun. */
export const training = (options: TrainingOptions): Training => {
  const { build, program, steps, batchTokens, evaluation, onStep, atEnd, ...execution } = options
  const ranks = execution.world.size
  const losses = new Curve(ranks)
  const heldOut = new Curve(ranks)
  let startedAt = performance.now()
  let endedAt = startedAt
  const run = Effect.suspend(() => {
    startedAt = endedAt = performance.now()
    const observation: Observation = {
      everySteps: 1,
      onLoss: (rank, step, loss) => {
        const mean = losses.add(rank, step, loss)
        if (mean === undefined) return
        endedAt = performance.now()
        onStep?.({ step, loss: mean })
      },
      evaluation: evaluation && {
        ...evaluation,
        lastStep: steps,
        onLoss: (rank, step, loss) => void heldOut.add(rank, step, loss)
      }
    }
    return executeThen(
      { ...execution, program: observed(build, (model) => program(model, steps), observation) },
      (ended) => {
        atEnd?.(ended)
        const { ranks, makespanSeconds, timeline, opLogs } = ended
        return { ranks, makespanSeconds, timeline, opLogs }
      }
    )
  })
  return {
    run,
    learnt: () => {
      const means = [...losses.means]
      const stepsDone = means.length
      const tokens = stepsDone * batchTokens * ranks
      const seconds = (endedAt - startedAt) / 1000
      return {
        stepsDone,
        tokens,
        seconds,
        tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
        losses: means,
        heldOutLosses: [...heldOut.means]
      }
    }
  }
}
