// What the learning bench records of its runs, in bench/learning/results.json.
import type { DataParallelSettings } from "../../core/algorithms/data-parallel/algorithms.ts"
import type { CurvePoint } from "../../exec/train/curve.ts"

/** What runs began with: random parameters, or those of 400 steps of S-SGD. */
export const starts = ["scratch", "continued"] as const
export type Start = (typeof starts)[number]

/** Where the curves of such runs are drawn. */
export const chartOf = (start: Start): string => `docs/images/learning-${start}.svg`

export interface RecordedRun {
  readonly start: Start
  readonly label: string
  readonly algorithm: DataParallelSettings
  /** Peak rate of the inner optimizer. */
  readonly learningRate: number
  readonly seed: number
  readonly steps: number
  readonly tokens: number
  readonly seconds: number
  /** Mean training loss of the last 50 steps. */
  readonly trainingLoss: number
  readonly heldOutLosses: ReadonlyArray<CurvePoint>
}

export interface Results {
  readonly scenario: string
  /** Where the seconds were measured. */
  readonly machine: string
  readonly runs: ReadonlyArray<RecordedRun>
}

/** Held-out loss at the end of a run. */
export const finalLoss = ({ heldOutLosses }: RecordedRun): number => heldOutLosses.at(-1)!.loss

export const mean = (numbers: ReadonlyArray<number>): number =>
  numbers.reduce((sum, one) => sum + one, 0) / numbers.length

/** Runs by label, in order of appearance; in each the runs by seed. */
export const byLabel = (
  runs: ReadonlyArray<RecordedRun>
): ReadonlyMap<string, ReadonlyArray<RecordedRun>> => {
  const groups = new Map<string, Array<RecordedRun>>()
  for (const run of runs) {
    const group = groups.get(run.label)
    if (group === undefined) groups.set(run.label, [run])
    else group.push(run)
  }
  return groups
}
