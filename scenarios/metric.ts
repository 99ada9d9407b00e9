// A metric's value as text for tables in a terminal.
import { formatBandwidth, formatBytes, formatSeconds, formatShare } from "../core/units.ts"
import type { Metric } from "./family.ts"

export const formatMetric = (value: number, unit: Metric["unit"]): string => {
  if (Number.isNaN(value)) return "-"
  switch (unit) {
    case "seconds":
      return formatSeconds(value)
    case "bytes":
      return formatBytes(value)
    case "bytesPerSecond":
      return formatBandwidth(value)
    case "share":
      return formatShare(value)
    case "count":
      return Math.round(value).toLocaleString("en")
    case "perSecond":
      return `${Number(value.toPrecision(4)).toLocaleString("en")}/s`
    case "number":
      return String(Number(value.toPrecision(4)))
  }
}
