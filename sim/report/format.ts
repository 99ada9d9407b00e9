// Numbers for people, as the report prints them: units as in core/units, without digits that say nothing.
import { formatBandwidth, formatBytes, formatSeconds } from "../../core/units.ts"
import type { AxisUnit, AxisValue } from "./study-report.ts"

/** "1.00 Gbit/s" reads "1 Gbit/s": zeros that end a fraction go. */
const trim = (text: string): string => text.replace(/(\.\d*?)0+(?=\D|$)/u, "$1").replace(/\.(?=\D|$)/u, "")

const prefixes = ["", "k", "M", "G", "T", "P"] as const

/** "1.5M": three significant digits and an SI prefix. */
const withPrefix = (value: number): string => {
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : String(value)
  const rounded = Number(value.toPrecision(3))
  let scaled = rounded
  let index = 0
  while (Math.abs(scaled) >= 1000 && index < prefixes.length - 1) {
    scaled /= 1000
    index++
  }
  return `${Number(scaled.toPrecision(3))}${prefixes[index]}`
}

export const formatTime = (seconds: number): string => trim(formatSeconds(seconds)).replace(" us", " \u00b5s")

export const formatSize = (bytes: number): string => trim(formatBytes(bytes))

/** "42 %", "0.93 %": two significant digits below 10 %, none after the point above. */
export const formatPercent = (share: number): string => {
  const percent = share * 100
  const digits = Math.abs(percent) >= 9.95 || percent === 0 ? 0 : Math.abs(percent) >= 0.995 ? 1 : 2
  return `${percent.toFixed(digits)} %`
}

/** "4.1\u00d7", "0.35\u00d7", "110\u00d7": two significant digits. */
export const formatRatio = (ratio: number): string =>
  ratio >= 9.95
    ? `${Number(ratio.toPrecision(2)).toLocaleString("en")}\u00d7`
    : `${ratio.toPrecision(2)}\u00d7`

/** How much more a ratio above 1 is: "3 %" while that is less than a tenth, else "1.4\u00d7". */
export const formatMore = (ratio: number): string =>
  ratio < 1.095 ? `${Math.round((ratio - 1) * 100)} %` : formatRatio(ratio)

/** A value of an axis, with its unit. */
export const formatAxisValue = (value: AxisValue, unit: AxisUnit): string => {
  if (typeof value === "string") return value
  switch (unit) {
    case "bytesPerSecond":
      return trim(formatBandwidth(value))
    case "seconds":
      return formatTime(value)
    case "bytes":
      return formatSize(value)
    case "flops":
      return `${withPrefix(value)}FLOP/s`
    case "share":
      return formatPercent(value)
    case "perSecond":
      return `${withPrefix(value)}/s`
    case "count":
      return Number.isFinite(value) ? value.toLocaleString("en") : "\u221e"
    case "number":
    case "text":
      return String(Number(value.toPrecision(4)))
  }
}

/** As `formatAxisValue`, rounded to two significant digits: for values that were interpolated. */
export const formatAbout = (value: number, unit: AxisUnit): string =>
  formatAxisValue(
    unit === "bytesPerSecond" ? Number((value * 8).toPrecision(2)) / 8 : Number(value.toPrecision(2)),
    unit
  )

/** A tick of an axis whose title says the unit: "10G". Times keep theirs, as they change along the axis. */
export const formatTick = (value: number, unit: AxisUnit): string => {
  if (value === Infinity) return unit === "bytesPerSecond" ? "unlimited" : "\u221e"
  switch (unit) {
    case "bytesPerSecond":
      return withPrefix(value * 8)
    case "seconds":
      return formatTime(value)
    case "share":
      return `${Math.round(value * 100)} %`
    case "number":
      return String(Number(value.toPrecision(3)))
    default:
      return withPrefix(value)
  }
}

/** The unit of ticks, for an axis title; empty where ticks carry their own or there is none. */
export const tickUnit = (unit: AxisUnit): string =>
  unit === "bytesPerSecond"
    ? "bit/s"
    : unit === "bytes"
      ? "B"
      : unit === "flops"
        ? "FLOP/s"
        : unit === "perSecond"
          ? "1/s"
          : ""

export const capitalized = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
