// Where a step's error lies: the ops of one rank, predicted and measured, beside each other, on one clock that begins with the first
// measured step. Knows nothing of how either timeline was come by.
import { Lane, laneNames } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"

/** An op of a rank, once for each step that has it. */
export interface OpTimes {
  readonly lane: string
  readonly step: number
  readonly label: string
  readonly sizeBytes: number
  readonly startSeconds: number
  readonly endSeconds: number
}

/** Ops of the communication lanes of a rank, and the last of each step of its compute lane: what the others are to be read beside. */
export const opTimes = (timeline: Timeline, rank: number): ReadonlyArray<OpTimes> => {
  const rows = Array.from(timeline.rank, (_, row) => row).filter((row) => timeline.rank[row] === rank)
  const ends = new Map<number, number>()
  for (const row of rows) {
    if (timeline.lane[row] === Lane.compute) ends.set(timeline.step[row]!, row)
  }
  const last = new Set(ends.values())
  return rows
    .filter((row) => timeline.lane[row] !== Lane.compute || last.has(row))
    .map((row) => ({
      lane: laneNames[timeline.lane[row]!]!,
      step: timeline.step[row]!,
      label: timeline.labels[timeline.label[row]!]!,
      sizeBytes: timeline.sizeBytes[row]!,
      startSeconds: timeline.startSeconds[row]!,
      endSeconds: timeline.endSeconds[row]!
    }))
}

/** Where the compute lane is done with the steps before that one. */
const zeroOf = (ops: ReadonlyArray<OpTimes>, fromStep: number): number =>
  ops.reduce(
    (zero, { lane, step, endSeconds }) =>
      lane === "compute" && step < fromStep ? Math.max(zero, endSeconds) : zero,
    0
  )

const milliseconds = (seconds: number): string => (1e3 * seconds).toFixed(1).padStart(9)

/** A line for each op of the steps from `fromStep` on that both have, in the order of what was measured. */
export const opByOp = (
  predicted: ReadonlyArray<OpTimes>,
  measured: ReadonlyArray<OpTimes>,
  fromStep: number
): string => {
  const keyOf = ({ lane, step, label }: OpTimes): string => `${lane} ${step} ${label}`
  const named = new Map(predicted.map((op) => [keyOf(op), op]))
  const [theirs, ours] = [zeroOf(predicted, fromStep), zeroOf(measured, fromStep)]
  const lines = measured
    .filter(({ step }) => step >= fromStep)
    .map((op) => {
      const other = named.get(keyOf(op))
      const at = (one: OpTimes | undefined, from: number): string =>
        one === undefined
          ? "not there".padStart(27)
          : milliseconds(one.startSeconds - from) +
            milliseconds(one.endSeconds - from) +
            milliseconds(one.endSeconds - one.startSeconds)
      return `${op.lane.padEnd(8)}${String(op.step).padStart(4)} ${at(other, theirs)} |${at(op, ours)} ${String(op.sizeBytes).padStart(10)} B  ${op.label}`
    })
  return [`lane    step predicted: start      end     took |measured: start     end     took`, ...lines].join(
    "\n"
  )
}
