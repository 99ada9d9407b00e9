// Tables of timings that people make themselves: ops (`op,attributes,median_seconds`) and collectives
// (`op,ranks,bytes,median_seconds,link`). Vidur's, which come as CSV too, are in vidur.ts.
import * as Effect from "effect/Effect"
import { timedCollectives, type CollectiveCost, type OpCost } from "../core/profile.ts"
import type { ImportReport } from "./import-report.ts"
import { commaHint, readText, tableLines, type Line } from "./text.ts"
import { tableProfile, type TableOptions } from "./table-profile.ts"
import { isVidur, vidurTables } from "./vidur.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

const seconds = ["median_seconds", "mean_seconds"] as const
const opColumns = "op,attributes,median_seconds"
const collectiveColumns = "op,ranks,bytes,median_seconds,link"

const isTimings = (names: ReadonlyArray<string>): boolean =>
  names.includes("op") && seconds.some((name) => names.includes(name))

/**
 * Imports a table of timings; its first line says which. Ops: `op,attributes,median_seconds`, attributes as
 * `k=v;k=v` with numbers. Collectives: `op,ranks,bytes,median_seconds,link` (link may be left out; "unshaped" then).
 * Columns may come in any order; `mean_seconds` is taken too, with a warning. Errors name line, column and value.
 */
export const importCsv = (
  text: string,
  options: TableOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "table.csv"
  return attempt(file, "a table of timings in CSV", () => {
    const [head, ...lines] = tableLines(file, text, (names) => isTimings(names) || isVidur(names))
    const accepted = `the columns ${opColumns} or ${collectiveColumns}, or those of Vidur's tables`
    if (head === undefined) throw new TraceError({ file, field: "content", value: "empty", accepted })
    const position = new Map<string, number>()
    for (const [index, name] of head.cells.entries()) {
      if (position.has(name)) {
        throw new TraceError({ file, field: `line ${head.number}, header`, value: `${name} twice`, accepted })
      }
      position.set(name, index)
    }
    if (isVidur(head.cells)) {
      const { warnings: told, ...tables } = vidurTables(file, head, lines)
      return { profile: tableProfile("vidur", options, tables), unattributed: [], warnings: told }
    }
    const time = seconds.find((name) => position.has(name))
    const isOps = position.has("attributes")
    const known = isOps ? ["op", "attributes", time] : ["op", "ranks", "bytes", time]
    const missing = known.some((name) => name === undefined || !position.has(name))
    const extra = [...position.keys()].some((name) => !known.includes(name) && (isOps || name !== "link"))
    if (missing || extra) {
      throw new TraceError({
        file,
        field: `line ${head.number}, header`,
        value: head.cells.join(","),
        accepted
      })
    }
    const warnings: Array<string> = []
    if (time === "mean_seconds")
      warnings.push("the table holds means; they are used where medians are expected")
    if (lines.length === 0) {
      throw new TraceError({
        file,
        field: "content",
        value: "a header without rows",
        accepted: "at least one row"
      })
    }
    const rows = lines.map((line) => rowOf(file, line, position, head.cells.length))
    if (isOps) {
      const ops = rows.map((row): OpCost => ({
        op: row.text("op"),
        attributes: attributesOf(row),
        medianSeconds: row.number(time!, "a time in seconds of at least 0, such as 2.5e-05", false, 0)
      }))
      return { profile: tableProfile("table", options, { ops }), unattributed: [], warnings }
    }
    const collectives = rows.map((row): CollectiveCost => ({
      op: collectiveOf(row),
      ranks: row.number("ranks", "a whole number of ranks, at least 1", true, 1),
      sizeBytes: row.number("bytes", "a whole number of bytes, at least 0", true, 0),
      medianSeconds: row.number(time!, "a time in seconds of at least 0, such as 2.5e-05", false, 0),
      link: position.has("link") ? row.text("link") : "unshaped"
    }))
    return { profile: tableProfile("table", options, { collectives }), unattributed: [], warnings }
  })
}

/** As `importCsv`, from a file. */
export const importCsvFile = (
  path: string,
  options: TableOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a table in CSV", async () => readText(path)),
    (text) => importCsv(text, { file: path, ...options })
  )

interface Row {
  bad(column: string, value: string, accepted: string): TraceError
  text(column: string): string
  number(column: string, accepted: string, whole: boolean, min: number): number
}

const decimal = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/u

const rowOf = (file: string, line: Line, position: ReadonlyMap<string, number>, width: number): Row => {
  const bad = (column: string, value: string, accepted: string) =>
    new TraceError({
      file,
      field: `line ${line.number}, column ${column}`,
      value: showValue(value),
      accepted
    })
  if (line.cells.length !== width) {
    const value = `${line.cells.length} cells (${showValue(line.cells.join(","))})`
    throw new TraceError({
      file,
      field: `line ${line.number}`,
      value,
      accepted: `${width} cells, as in the header${line.cells.length > width ? " (quote what has the separator in it)" : ""}`
    })
  }
  const cell = (column: string): string => line.cells[position.get(column)!]!
  return {
    bad,
    text: (column) => {
      const value = cell(column)
      if (value === "") throw bad(column, value, "a text")
      return value
    },
    number: (column, accepted, whole, min) => {
      const text = cell(column)
      const value = decimal.test(text) ? Number(text) : Number.NaN
      const max = column === "ranks" ? 2 ** 31 - 1 : Number.MAX_VALUE
      if (!(value >= min && value <= max) || (whole && !Number.isInteger(value)))
        throw bad(column, text, accepted + commaHint(text))
      return value
    }
  }
}

const collectiveOf = (row: Row): CollectiveCost["op"] => {
  const name = row.text("op")
  const op = timedCollectives.find((known) => known === name)
  if (op === undefined) throw row.bad("op", name, timedCollectives.join(", "))
  return op
}

const attributesOf = (row: Row): Readonly<Record<string, number>> => {
  const text = row.text("attributes")
  const attributes = new Map<string, number>()
  for (const part of text.split(";")) {
    const [key = "", value = "", ...more] = part.split("=").map((side) => side.trim())
    if (
      key === "" ||
      more.length > 0 ||
      !decimal.test(value) ||
      !Number.isFinite(Number(value)) ||
      attributes.has(key)
    ) {
      throw row.bad(
        "attributes",
        text,
        `numbers by name, each once, such as "m=16;k=768;n=3072" (not ${showValue(part)})`
      )
    }
    attributes.set(key, Number(value))
  }
  return Object.fromEntries(attributes)
}
