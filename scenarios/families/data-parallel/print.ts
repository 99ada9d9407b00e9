// How long a step of data-parallel training takes, and what of it is waiting, for a person.
import { formatSeconds, formatShare } from "../../../core/units.ts"
import { metricOf, type RunResult } from "../../result.ts"
import { alignColumns } from "../../table.ts"

export const print = (result: RunResult): ReadonlyArray<string> => {
  const stepSeconds = metricOf(result, "stepSeconds")
  const line = (title: string, metric: string, note: string): ReadonlyArray<string> => {
    const seconds = metricOf(result, metric)
    return [title, formatSeconds(seconds), formatShare(stepSeconds > 0 ? seconds / stepSeconds : 0), note]
  }
  return alignColumns(
    [
      [
        "step",
        formatSeconds(stepSeconds),
        "",
        `mean of ${result.steps ?? 0} after ${result.warmupSteps ?? 0} of warm-up`
      ],
      line("  compute", "computeSeconds", "mean of the ranks"),
      line("  waiting", "exposedCommunicationSeconds", "for communication and slower ranks")
    ],
    (column) => column === 1 || column === 2
  )
}
