// What the steps of a real run took, from its timeline, as scenarios/step-figures.ts has it of a simulated one.
import { Lane } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"

export interface ExecutedSteps {
  /** Mean time of a measured step: that of the rank that finishes last. */
  readonly stepSeconds: number
  /** Mean per step and rank of the time its compute lane is busy. */
  readonly computeSeconds: number
  /** The same of its communication lane: how long messages took, with waits for the other ranks. */
  readonly communicationSeconds: number
}

/** Of the `steps` steps after `warmupSteps`, at least one. A step ends with the compute lane's last op of it. */
export const executedSteps = (
  { rank, lane, step, startSeconds, endSeconds }: Timeline,
  warmupSteps: number,
  steps: number
): ExecutedSteps => {
  const ranks = new Set(rank)
  let from = 0
  let to = 0
  let compute = 0
  let communication = 0
  for (let row = 0; row < rank.length; row++) {
    const end = endSeconds[row]!
    const taken = end - startSeconds[row]!
    const measured = step[row]! >= warmupSteps && step[row]! < warmupSteps + steps
    if (lane[row] === Lane.compute) {
      if (step[row]! < warmupSteps) from = Math.max(from, end)
      if (step[row]! < warmupSteps + steps) to = Math.max(to, end)
      if (measured) compute += taken
    } else if (measured && (lane[row] === Lane.inter || lane[row] === Lane.intra)) communication += taken
  }
  const count = steps * ranks.size
  return {
    stepSeconds: (to - from) / steps,
    computeSeconds: compute / count,
    communicationSeconds: communication / count
  }
}
