// The JSON report of nccl-tests (`-J file`, from 2.17.4 on). Knows that format and nothing of what collectives cost.
import type { NcclRow, NcclRun } from "./nccl-tests-text.ts"
import { showValue, TraceError } from "./trace-error.ts"

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const listOf = (value: unknown): ReadonlyArray<unknown> => (Array.isArray(value) ? value : [])

export const isNcclJson = (text: string): boolean => /^\uFEFF?\s*\{/u.test(text)

/** The run of a report. Throws `TraceError` with the place of what is missing. */
export const runOfJson = (file: string, text: string): NcclRun => {
  const bad = (field: string, value: unknown, accepted: string) =>
    new TraceError({ file, field, value: showValue(value), accepted })
  let report: unknown
  try {
    report = JSON.parse(text.replace(/^\uFEFF/u, ""))
  } catch (cause) {
    throw bad("content", cause, "the JSON report of a nccl-tests program")
  }
  const results = isObject(report) ? report["results"] : undefined
  if (!isObject(report) || !Array.isArray(results))
    throw bad("results", results, "the list of results in the JSON report of a nccl-tests program")
  const config = isObject(report["config"]) ? report["config"] : {}
  const devices = [...listOf(config["devices"]), ...listOf(report["devices"])].filter(isObject)
  const ranks = new Set(devices.map((device) => device["rank"]).filter((rank) => typeof rank === "number"))
  const name = devices.map((device) => device["device_info"]).find((each) => typeof each === "string")
  const test = listOf(report["args"])
    .map((arg) => /([a-z]+(?:_[a-z]+)*)_perf\b/u.exec(String(arg))?.[1])
    .find((each) => each !== undefined)
  const bounds = isObject(report["out_of_bounds"]) ? report["out_of_bounds"] : {}
  return {
    test,
    named: [],
    ranks,
    device: name,
    header: ["size", "count", "type", "redop", "root", "time"],
    hasInPlace: results.some((row) => isObject(row) && isObject(row["in_place"])),
    rows: results.map((row, index): NcclRow => {
      const place = `results[${index}]`
      if (!isObject(row)) throw bad(place, row, "an object")
      const size = row["size"]
      if (typeof size !== "number" || !(size >= 0))
        throw bad(`${place}.size`, size, "a whole number of bytes")
      const part = (key: string) => (isObject(row[key]) ? row[key] : {})
      const time = (key: string) => {
        const value = part(key)["time"] ?? part(key)["cpu_time"]
        return value === undefined ? undefined : String(value)
      }
      const wrong = (key: string) => Number(part(key)["nwrong"] ?? 0)
      return {
        place,
        sizeBytes: size,
        type: String(row["type"] ?? ""),
        redop: String(row["redop"] ?? ""),
        root: String(row["root"] ?? ""),
        busShare: undefined,
        outOfPlace: time("out_of_place"),
        inPlace: time("in_place"),
        wrong: Math.max(0, wrong("out_of_place") || 0, wrong("in_place") || 0)
      }
    }),
    failed:
      bounds["okay"] === false || bounds["okay"] === "false" ? "that values were out of bounds" : undefined
  }
}
