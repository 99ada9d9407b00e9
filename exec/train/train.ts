// Trains a model of real kernels with any data-parallel program, or layers of experts with any MoE schedule, and keeps what can
// be told of it at any moment: the loss of every step, the loss on held-out text, tokens per second. Knows nothing of
// scenarios, files or which algorithm it runs.
import * as Effect from "effect/Effect"
import type { KernelModelBuilder } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed, type Observation } from "../../core/algorithms/data-parallel/observe.ts"
import type { TrainingModelBuilder } from "../../core/algorithms/data-parallel/training-model.ts"
import { moeGroups } from "../../core/algorithms/moe-training/groups.ts"
import type { MoeModel } from "../../core/algorithms/moe-training/model.ts"
import { moeTraining, type MoePlan } from "../../core/algorithms/moe-training/program.ts"
import { Machine, type MachineError, type Program } from "../../core/machine/machine.ts"
import { execute, executeThen, type Ended, type Execution, type ExecutionResult } from "../execute.ts"
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

/** A data-parallel training run that has not begun. */
export const training = (options: TrainingOptions): Training => {
  const { build, program, steps, batchTokens, evaluation, onStep, atEnd, ...execution } = options
  return learning(execution.world.size, batchTokens, onStep, (report) => {
    const observation: Observation = {
      everySteps: 1,
      onLoss: report.loss,
      evaluation: evaluation && { ...evaluation, lastStep: steps, onLoss: report.heldOutLoss }
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
}

export interface MoeTrainingOptions extends Omit<Execution<unknown>, "program"> {
  readonly model: MoeModel
  readonly plan: MoePlan
  readonly steps: number
  readonly onStep?: ((point: CurvePoint) => void) | undefined
}

/** A training run of MoE layers that has not begun. Its loss is the program's: half the mean over tokens of the output's square. */
export const moeLayerTraining = (options: MoeTrainingOptions): Training => {
  const { model, plan, steps, onStep, ...execution } = options
  const { size } = execution.world
  const tokens = moeGroups(execution.world, 0).nodes * model.batch * model.sequence
  return learning(size, tokens / size, onStep, (report) => {
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      yield* moeTraining({
        model,
        plan,
        steps,
        afterStep: (step, { output }) =>
          Effect.map(machine.read(output), (values) => {
            let sum = 0
            for (const value of values) sum += value * value
            report.loss(machine.rank, step + 1, sum / (2 * (output.elements / model.width)))
          })
      })
    })
    return execute({ ...execution, program })
  })
}

interface Report {
  readonly loss: (rank: number, step: number, loss: number) => void
  readonly heldOutLoss: (rank: number, step: number, loss: number) => void
}

/** Keeps what a run reports. `batchTokens`: those of one rank in a step. */
const learning = (
  ranks: number,
  batchTokens: number,
  onStep: ((point: CurvePoint) => void) | undefined,
  begin: (report: Report) => Training["run"]
): Training => {
  const losses = new Curve(ranks)
  const heldOut = new Curve(ranks)
  let startedAt = performance.now()
  let endedAt = startedAt
  const run = Effect.suspend(() => {
    startedAt = endedAt = performance.now()
    return begin({
      loss: (rank, step, loss) => {
        const mean = losses.add(rank, step, loss)
        if (mean === undefined) return
        endedAt = performance.now()
        onStep?.({ step, loss: mean })
      },
      heldOutLoss: (rank, step, loss) => void heldOut.add(rank, step, loss)
    })
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
