// How requests were served, for a person.
import { fastestBytesPerSecond } from "../../../core/algorithms/kv-serving/handoff.ts"
import { formatBytes, formatSeconds, formatShare, counted } from "../../../core/units.ts"
import { formatMetric } from "../../metric.ts"
import { metricOf, type RunResult } from "../../result.ts"
import { alignColumns } from "../../table.ts"

export const print = (result: RunResult): ReadonlyArray<string> => {
  const metric = (name: string): number => metricOf(result, name)
  const seconds = (name: string): string => formatMetric(metric(name), "seconds")
  const requests = result.details?.["requests"]
  const count = Array.isArray(requests) ? requests.length : 0
  const breakEven = metric("breakEvenBytesPerSecond")
  return [
    ...alignColumns(
      [
        ["", "mean", "p99"],
        ["time to first token", seconds("ttftSeconds"), seconds("ttftP99Seconds")],
        ["time per token", seconds("tpotSeconds"), seconds("tpotP99Seconds")],
        ["time to second token", seconds("decodeStartSeconds"), ""],
        ["time per request", seconds("requestSeconds"), ""]
      ],
      (column) => column > 0
    ),
    "",
    `${counted(count, "request")} in ${formatSeconds(result.makespanSeconds)}: ${formatMetric(metric("tokensPerSecond"), "perSecond")} tokens, ${formatShare(metric("objectiveShare"))} within the objective (${formatMetric(metric("goodputPerSecond"), "perSecond")} requests)`,
    `cache per prompt ${formatBytes(metric("promptCacheBytes"))}, at most ${formatBytes(metric("peakCacheBytes"))} at a time; batches of ${formatMetric(metric("meanBatch"), "number")} on average, ${metric("largestBatch")} at most`,
    ...(Number.isNaN(breakEven)
      ? []
      : [`a lone cache is handed over sooner than the full one ${below(breakEven)}`])
  ]
}

const below = (breakEven: number): string => {
  if (breakEven === 0) return "at no bandwidth"
  if (breakEven === fastestBytesPerSecond) return "at any bandwidth"
  return `below ${formatMetric(breakEven, "bytesPerSecond")}`
}
