// What the steps of a training run come to: means over the measured ones, each simulated rank counted as often as it stands for.
import type { SimulatedEnd } from "./runnable.ts"

export interface StepFigures {
  /** Mean time of a measured step: that of the rank that finishes last. */
  readonly stepSeconds: number
  /** Mean per step and rank of the time its compute lane is busy. */
  readonly computeSeconds: number
  /** computeSeconds / stepSeconds. */
  readonly computeUtilisation: number
  /** stepSeconds - computeSeconds: what a step waits for communication, and for slower ranks. */
  readonly exposedCommunicationSeconds: number
}

interface MeasuredSteps {
  /** From the end of the warm-up to the end of the last step. */
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly figures: StepFigures
}

/** Of times since the run began, which are sums of many: less is no waiting. */
const rounding = 1e-12

/** The `steps` steps after `warmupSteps` (at least one) that are not measured. */
export const measuredSteps = <A>(
  simulated: SimulatedEnd<A>,
  warmupSteps: number,
  steps: number
): MeasuredSteps => {
  let fromSeconds = 0
  let toSeconds = 0
  let busySeconds = 0
  let count = 0
  const last = warmupSteps + steps - 1
  for (const rank of simulated.ranks) {
    fromSeconds = Math.max(fromSeconds, rank.stepEndSeconds[warmupSteps - 1]!)
    toSeconds = Math.max(toSeconds, rank.stepEndSeconds[last]!)
    busySeconds += rank.count * (rank.stepBusySeconds[last]! - rank.stepBusySeconds[warmupSteps - 1]!)
    count += rank.count
  }
  const stepSeconds = (toSeconds - fromSeconds) / steps
  const computeSeconds = busySeconds / count / steps
  const waiting = stepSeconds - computeSeconds
  return {
    fromSeconds,
    toSeconds,
    figures: {
      stepSeconds,
      computeSeconds,
      computeUtilisation: stepSeconds > 0 ? computeSeconds / stepSeconds : 1,
      exposedCommunicationSeconds: waiting > rounding * toSeconds ? waiting : 0
    }
  }
}
