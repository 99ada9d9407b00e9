// Trains a program of real kernels that tells its losses, and keeps what can be told of it at any moment: the loss of every step, the loss on held-out text, tokens per second. Knows nothing of
// scenarios, files or which algorithm it runs.
import * as Effect from "effect/Effect"
import type { LossReport } from "../../core/algorithms/loss-report.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import type { Snapshots } from "../../core/machine/snapshots.ts"
import type { Trainable } from "../../scenarios/trainable.ts"
import { executeThen, resultOf, type Ended, type Execution, type ExecutionResult } from "../execute.ts"
import type { ProcessJob } from "../job/processes.ts"
import { Curve, type CurvePoint } from "./curve.ts"

/** What is trained: of a scenario or made by hand. */
export type Trained = Pick<Trainable, "world" | "capacityBytes" | "batchTokens" | "program">

/** How a training run is executed and observed. */
export interface TrainingOptions extends Pick<
  Execution<unknown>,
  "record" | "initial" | "linkBytesPerSecond" | "prepare" | "open"
> {
  /** The job of which this process is one rank; by default all ranks are here. */
  readonly processes?: ProcessJob | undefined
  /** Where the run goes on from an earlier one, or is to be gone on from. */
  readonly snapshots?: Snapshots | undefined
  /** Told of every step that all ranks have taken. */
  readonly onStep?: ((point: CurvePoint) => void) | undefined
  /** Sees the run when it has ended, while its tensors can still be looked at. */
  readonly atEnd?: ((ended: Ended<unknown>) => void) | undefined
}

/** What has been learnt so far. */
export interface Learnt {
  /** Steps that every rank has taken, those before the run that this one goes on from included. */
  readonly stepsDone: number
  /** In this run, as all that follows. */
  readonly tokens: number
  /** From the first rank's beginning to the last of these steps, evaluations included. */
  readonly seconds: number
  readonly tokensPerSecond: number
  /** Mean over ranks of the training loss of each step, by number of steps taken. */
  readonly losses: ReadonlyArray<CurvePoint>
  /** Mean over ranks of the loss on held-out text, each rank with its own parameters. */
  readonly heldOutLosses: ReadonlyArray<CurvePoint>
  /** Of a loss that is scaled, rank by rank, when the last step has been taken. */
  readonly lossScales?: ReadonlyArray<LossScaleAtEnd>
}

/** What a rank's loss is scaled by at the end, and how many steps were skipped for overflow, earlier runs' included. */
export interface LossScaleAtEnd {
  readonly rank: number
  readonly scale: number
  readonly skippedSteps: number
}

/** A training run, to be started, and to be asked how far it is. */
export interface Training {
  readonly run: Effect.Effect<ExecutionResult<unknown>, MachineError>
  /** May be asked before, during and after the run, and after one that failed or was interrupted. */
  readonly learnt: () => Learnt
}

/** A training run that has not begun. */
export const training = (
  { world, capacityBytes, batchTokens, program }: Trained,
  { onStep, atEnd, processes, snapshots, ...execution }: TrainingOptions = {}
): Training =>
  learning(world.size, batchTokens, snapshots?.from ?? 0, onStep, (report) =>
    executeThen(
      {
        ...execution,
        job: processes === undefined ? undefined : () => processes.run(),
        world,
        capacityBytes,
        program: program(heard(report, processes), snapshots)
      },
      (ended) => {
        atEnd?.(ended)
        return resultOf(ended)
      }
    )
  )

/** In a job of processes, rank 0 hears of all ranks' losses; the others of none. */
const heard = (report: LossReport, links: ProcessJob | undefined): LossReport => {
  if (links === undefined) return report
  if (links.rank !== 0) {
    return {
      loss: (...loss) => links.tell(0, "loss", loss),
      heldOutLoss: (...loss) => links.tell(0, "held-out loss", loss),
      lossScale: (...scale) => links.tell(0, "loss scale", scale)
    }
  }
  links.onTold("loss", (_, loss) => report.loss(...(loss as Parameters<LossReport["loss"]>)))
  links.onTold("held-out loss", (_, loss) =>
    report.heldOutLoss(...(loss as Parameters<LossReport["heldOutLoss"]>))
  )
  links.onTold("loss scale", (_, scale) =>
    report.lossScale?.(...(scale as Parameters<NonNullable<LossReport["lossScale"]>>))
  )
  return report
}

/** Keeps what a run reports. `batchTokens`: those of one rank in a step. */
const learning = (
  ranks: number,
  batchTokens: number,
  from: number,
  onStep: ((point: CurvePoint) => void) | undefined,
  begin: (report: LossReport) => Training["run"]
): Training => {
  const losses = new Curve(ranks)
  const heldOut = new Curve(ranks)
  const scales: Array<LossScaleAtEnd> = []
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
      heldOutLoss: (rank, step, loss) => void heldOut.add(rank, step, loss),
      lossScale: (rank, scale, skippedSteps) => void scales.push({ rank, scale, skippedSteps })
    })
  })
  return {
    run,
    learnt: () => {
      const means = [...losses.means]
      const stepsDone = from + means.length
      const tokens = means.length * batchTokens * ranks
      const seconds = (endedAt - startedAt) / 1000
      return {
        stepsDone,
        tokens,
        seconds,
        tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
        losses: means,
        heldOutLosses: [...heldOut.means],
        ...(scales.length === 0 ? {} : { lossScales: scales.toSorted((a, b) => a.rank - b.rank) })
      }
    }
  }
}
