// Tables of timings that people make themselves: ops (`op,attributes,median_seconds`) and collectives
// (`op,ranks,bytes,median_seconds,link`). Vidur's, which come as CSV too, are in vidur.ts.
import * as Effect from "effect/Effect"
import { timedCollectives, type CollectiveCost, type OpCost } from "../core/profile.ts"
import type { ImportReport } from "./import-report.ts"
import { commaHint, readText, tableLines, type Line } from "./text.ts"
import { mergedRows, tableProfile, type TableOptions } from "./table-profile.ts"
import {
  bytesOfCell,
  collectiveNamed,
  isPredicted,
  isOtherCollective,
  secondsOfCell,
  timingColumns,
  type TimingColumns
} from "./timing-columns.ts"
import { isVidur, vidurTables } from "./vidur.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

export interface CsvOptions extends TableOptions {
  /** Which collective it was, where the table has no column of it. */
  readonly op?: string
  /** Number of ranks, where the table has no column of it. */
  readonly ranks?: number
  /** How the links were limited, where the table has no column of it; default "unshaped". */
  readonly link?: string
}

const opColumns = "op,attributes,median_seconds"
const collectiveColumns = "op,ranks,bytes,median_seconds,link"
const accepted = `the columns ${opColumns} or ${collectiveColumns} (or as others call them), or those of Vidur's tables`

const isTimings = (names: ReadonlyArray<string>): boolean => {
  const { op, size, time } = timingColumns(names)
  return time !== undefined && (op !== undefined || size !== undefined)
}

/**
 * Imports a table of timings; its first line says which. Ops: `op,attributes,median_seconds`, attributes as
 * `k=v;k=v` with numbers. Collectives: `op,ranks,bytes,median_seconds,link` (link may be left out; "unshaped" then).
 * Columns may come in any order, be called as benchmarks call them (`collective`, `num_gpus`, `Size (MB)`, `avg_latency_us`), and
 * hold units. Means are taken too, with a warning. Errors name line, column and value.
 */
export const importCsv = (
  text: string,
  options: CsvOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "table.csv"
  return attempt(file, "a table of timings in CSV", () => {
    const [head, ...lines] = tableLines(file, text, (names) => isTimings(names) || isVidur(names))
    if (head === undefined) throw new TraceError({ file, field: "content", value: "empty", accepted })
    const position = new Map<string, number>()
    for (const [index, name] of head.cells.entries()) {
      if (name !== "" && position.has(name)) {
        throw new TraceError({ file, field: `line ${head.number}, header`, value: `${name} twice`, accepted })
      }
      position.set(name, index)
    }
    if (isVidur(head.cells)) {
      const { warnings: told, ...tables } = vidurTables(file, head, lines)
      const warnings = [...vainOptions(options, "Vidur's tables say it"), ...told]
      return { profile: tableProfile("vidur", options, tables), unattributed: [], warnings }
    }
    if (isPredicted(head.cells)) {
      const value = "times that sim collective predicted"
      throw new TraceError({ file, field: `line ${head.number}, header`, value, accepted: "measured times" })
    }
    const columns = timingColumns(head.cells)
    const { op, ranks, size, time, attributes, others } = columns
    const isOps = attributes !== undefined
    const isWhole = isOps
      ? op !== undefined && others.length === 0 && size === undefined
      : (op ?? options.op) !== undefined && (ranks ?? options.ranks) !== undefined && size !== undefined
    if (time === undefined || !isWhole) {
      const lacks = isOps || time === undefined ? "" : lacking(columns, options)
      const field = `line ${head.number}, header`
      throw new TraceError({ file, field, value: head.cells.join(","), accepted: accepted + lacks })
    }
    const warnings: Array<string> = []
    if (time.statistic === "mean")
      warnings.push("the table holds means; they are used where medians are expected")
    if (time.statistic === undefined)
      warnings.push(`whether ${time.name} is a median the table does not say: it is taken for one`)
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
      warnings.push(...vainOptions(options, "the table is of ops, not of collectives"))
      const ops = rows.map((row): OpCost => ({
        op: row.text(op!),
        attributes: attributesOf(row, attributes),
        medianSeconds: secondsOf(row, time)
      }))
      return { profile: tableProfile("table", options, { ops }), unattributed: [], warnings }
    }
    const collectives = collectivesOf(rows, columns, options, warnings)
    return { profile: tableProfile("table", options, { collectives }), unattributed: [], warnings }
  })
}

/** Options that say what the table says itself, or what nothing of it has. */
const vainOptions = (
  { op, ranks, link }: Partial<Record<"op" | "ranks" | "link", string | number | undefined>>,
  why: string
): ReadonlyArray<string> =>
  Object.entries({ op, ranks, link }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name} ${value} has no effect: ${why}`]
  )

/** What a table of collectives lacks, and the option that says it, in words. */
const lacking = ({ op, ranks, size }: TimingColumns, options: CsvOptions): string =>
  [
    (op ?? options.op) === undefined ? "; which collective it was, --op says" : "",
    (ranks ?? options.ranks) === undefined ? "; of how many ranks, --ranks says" : "",
    size === undefined ? "; a column of bytes it must have" : ""
  ].join("")

const collectivesOf = (
  rows: ReadonlyArray<Row>,
  { op, ranks, size, time, link, others }: TimingColumns,
  options: CsvOptions,
  warnings: Array<string>
): ReadonlyArray<CollectiveCost> => {
  if (others.length > 0) warnings.push(`columns ${others.join(", ")} are not used`)
  for (const [name, column] of [
    ["op", op],
    ["ranks", ranks],
    ["link", link]
  ] as const)
    if (column !== undefined)
      warnings.push(...vainOptions({ [name]: options[name] }, `the table's column ${column} says it`))
  const unused = new Set<string>()
  const costs = rows.flatMap((row): ReadonlyArray<CollectiveCost> => {
    const name = op === undefined ? options.op! : row.text(op)
    const collective = collectiveNamed(name)
    if (collective === undefined) {
      if (!isOtherCollective(name)) throw row.bad(op ?? "--op", name, timedCollectives.join(", "))
      unused.add(name)
      return []
    }
    return [
      {
        op: collective,
        ranks:
          ranks === undefined
            ? options.ranks!
            : row.number(ranks, "a whole number of ranks, at least 1", 1, 2 ** 31 - 1),
        sizeBytes: row.scaled(size!.name, "a whole number of bytes, at least 0", (cell) => {
          const bytes = bytesOfCell(cell, size!.bytes)
          return Math.abs(bytes - Math.round(bytes)) < 1e-6 * bytes ? Math.round(bytes) : bytes
        }),
        medianSeconds: secondsOf(row, time!),
        link: link === undefined ? (options.link ?? "unshaped") : row.text(link)
      }
    ]
  })
  if (unused.size > 0) warnings.push(`${[...unused].join(", ")}: not a collective that is used, left out`)
  const divided = new Set(
    costs.flatMap((cost) => (cost.op === "all_gather" || cost.op === "reduce_scatter" ? [cost.op] : []))
  )
  if (size!.name !== "bytes" && divided.size > 0)
    warnings.push(
      `sizes of ${[...divided].join(" and ")} are taken for one rank's (its input; of a reduce_scatter its output): where they are of all ranks, as nccl-tests count, divide them by the ranks`
    )
  return others.length === 0 ? costs : mergedRows(costs, warnings)
}

const secondsOf = (row: Row, time: NonNullable<TimingColumns["time"]>): number => {
  const unit = time.inSeconds === undefined ? " with its unit" : ""
  return row.scaled(
    time.name,
    `a time of at least 0${unit}, such as ${unit === "" ? "2.5e-05" : "25us"}`,
    (cell) => secondsOfCell(cell, time)
  )
}

/** As `importCsv`, from a file. */
export const importCsvFile = (
  path: string,
  options: CsvOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a table in CSV", async () => readText(path)),
    (text) => importCsv(text, { file: path, ...options })
  )

interface Row {
  bad(column: string, value: string, wants: string): TraceError
  text(column: string): string
  /** A whole number. */
  number(column: string, accepted: string, min: number, max: number): number
  /** What `scale` makes of a cell, at least 0; whole where it says bytes. */
  scaled(column: string, accepted: string, scale: (cell: string) => number): number
}

const decimal = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/u

const rowOf = (file: string, line: Line, position: ReadonlyMap<string, number>, width: number): Row => {
  const bad = (column: string, value: string, wants: string) =>
    new TraceError({
      file,
      field: `line ${line.number}, column ${column}`,
      value: showValue(value),
      accepted: wants
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
    number: (column, wants, min, max) => {
      const text = cell(column)
      const value = decimal.test(text) ? Number(text) : Number.NaN
      if (!(value >= min && value <= max && Number.isInteger(value)))
        throw bad(column, text, wants + commaHint(text))
      return value
    },
    scaled: (column, wants, scale) => {
      const text = cell(column)
      const value = scale(text)
      if (!(value >= 0 && value <= Number.MAX_VALUE) || (wants.includes("whole") && !Number.isInteger(value)))
        throw bad(column, text, wants + commaHint(text))
      return value
    }
  }
}

const attributesOf = (row: Row, column: string): Readonly<Record<string, number>> => {
  const text = row.text(column)
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
        column,
        text,
        `numbers by name, each once, such as "m=16;k=768;n=3072" (not ${showValue(part)})`
      )
    }
    attributes.set(key, Number(value))
  }
  return Object.fromEntries(attributes)
}
