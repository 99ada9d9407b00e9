// What a measurement cannot mean, said beside it and in its file: numbers stay as they were measured. Knows no device and no file.
import type { MeasuredHost } from "../core/cost/host.ts"
import { median } from "../core/median.ts"
import { counted, formatBytes, formatSeconds } from "../core/units.ts"
import type { costOfCompany } from "./in-company.ts"
import type { CollectiveSamples } from "./recorded.ts"
import type { Recording } from "./recording-cost.ts"

/**
 * Measurements of one thing whose most is more times the least are told: a value in their middle is off by a tenth from both, and predicted
 * times are held to 5 % elsewhere (docs/validation.md).
 */
const untoldRatio = 1.2

const isWide = (least: number, most: number): boolean => most > untoldRatio * least

/** Of parts of one run, alike but for their time. */
export const stepWarnings = (seconds: ReadonlyArray<number>): ReadonlyArray<string> => {
  const [least, most] = [Math.min(...seconds), Math.max(...seconds)]
  return seconds.length > 1 && isWide(least, most)
    ? [
        `a step took ${formatSeconds(least)} to ${formatSeconds(most)} in ${seconds.length} parts of the run: its mean is known no better than that`
      ]
    : []
}

/** Collectives that are less of all their time are not told of. */
const toldShare = 0.1

/**
 * Of collectives whose profile has means, which a few that something held up (a connection that is made, a segment sent again) make what hardly
 * any took.
 */
export const collectiveWarnings = (samples: ReadonlyArray<CollectiveSamples>): ReadonlyArray<string> => {
  const sum = (seconds: ReadonlyArray<number>): number => seconds.reduce((total, value) => total + value, 0)
  const all = sum(samples.map(({ seconds }) => sum(seconds)))
  return samples.flatMap(({ op, ranks, sizeBytes, seconds }) => {
    const [mean, middle] = [sum(seconds) / seconds.length, median(seconds)]
    return sum(seconds) >= toldShare * all && isWide(middle, mean)
      ? [
          `${op} of ${counted(ranks, "rank")}, ${formatBytes(sizeBytes)}, took ${formatSeconds(mean)} in the mean of ${seconds.length}, which the profile has, and ${formatSeconds(middle)} in the median: something held some of them up, ${formatSeconds(Math.max(...seconds))} at most`
        ]
      : []
  })
}

/**
 * Of a host's read that was measured beside steps that nobody timed: what it holds for. Such steps are launched as graphs, which begin when all of
 * their ops were submitted, so that part of the read is as long as the program.
 */
export const readWarnings = (
  host: Pick<MeasuredHost, "readSeconds"> | undefined,
  recording: Pick<Recording, "ops" | "submittingSeconds"> | undefined
): ReadonlyArray<string> =>
  host?.readSeconds === undefined || recording === undefined
    ? []
    : [
        `a read takes the host ${formatSeconds(host.readSeconds)} with ${counted(recording.ops, "op")} between two reads, which take ${formatSeconds(recording.submittingSeconds)} to submit: that is in it in part, so it holds for programs with about as many`
      ]

/** `field`: of a scenario that reckons with the slowdown. */
export const companyWarnings = (
  company: ReturnType<typeof costOfCompany>,
  field: string
): ReadonlyArray<string> => {
  const { kernels, kernelsOfShares = [] } = company ?? {}
  const [least, most] = [kernelsOfShares[0], kernelsOfShares.at(-1)]
  if (least === undefined || most === undefined) return []
  if (kernels === undefined)
    return [
      `no ${field} is told: kernels lost more time beside collectives than collectives were beside them, so something else held them up`
    ]
  if (!isWide(least, most)) return []
  const upTo = most < Infinity ? `to ${most.toFixed(2)}` : "upwards, where something else held kernels up too"
  return [
    `${field} was ${least.toFixed(2)} ${upTo} in ${kernelsOfShares.length} shares of the steps beside collectives: it is known no better than that`
  ]
}
