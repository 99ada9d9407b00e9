// All rows of a study as a table that the page's script can sort. Plain without it.
import { formatAxisValue, formatPercent, formatRatio, formatSize, formatTime } from "./format.ts"
import { displayName, type Grid } from "./grid.ts"
import { markup, type Markup } from "./markup.ts"
import type { ReportAxis, ReportRow, StudyReport } from "./study-report.ts"

/** Rows shown; a report is for reading, and the study's CSV has them all. */
const ROWS_MAX = 2000

interface Column {
  readonly title: string
  readonly help?: string
  readonly numeric: boolean
  readonly sortBy: (row: ReportRow) => number | string
  readonly text: (row: ReportRow) => string
}

/** Bytes one link of the busiest kind carries in a step. */
const bytesPerStep = ({ links, steps, warmupSteps }: ReportRow): number =>
  Math.max(0, ...links.map(({ bytes, count }) => bytes / count)) / (steps + warmupSteps)

const axisColumn = ({ path, label, unit }: ReportAxis): Column => {
  const numeric = unit !== "text"
  return {
    title: label,
    numeric,
    sortBy: ({ at }) => at[path] ?? "",
    text: ({ at }) => {
      const value = at[path]
      if (value === undefined) return ""
      return path === "algorithm" ? displayName(String(value)) : formatAxisValue(value, unit)
    }
  }
}

export const table = (
  { rows, axes, search }: StudyReport,
  { fixed }: Grid,
  baselineAlgorithm: string | undefined
): Markup => {
  const varying = axes.filter((axis) => !fixed.some((other) => other.axis === axis))
  const others = varying.filter(({ path }) => path !== "algorithm")
  // Rows that differ from each other in the algorithm alone share their other values.
  const placeOf = ({ at }: ReportRow): string => JSON.stringify(others.map(({ path }) => at[path]))
  const baselines = new Map(
    rows
      .filter(({ algorithm }) => algorithm === baselineAlgorithm)
      .map((row) => [placeOf(row), row.stepSeconds])
  )
  const speedup = (row: ReportRow): number => (baselines.get(placeOf(row)) ?? NaN) / row.stepSeconds
  const columns: ReadonlyArray<Column> = [
    ...(varying.some(({ path }) => path === "algorithm")
      ? []
      : [
          {
            title: "algorithm",
            numeric: false,
            sortBy: ({ algorithm }: ReportRow) => algorithm,
            text: ({ algorithm }: ReportRow) => displayName(algorithm)
          }
        ]),
    ...varying.map(axisColumn),
    ...(search === undefined
      ? []
      : [
          number(
            search.label,
            "largest value tried at which compute utilisation is at most the target",
            ({ found }) => found ?? NaN,
            (found) => (Number.isNaN(found) ? "none tried" : formatAxisValue(found, search.unit))
          )
        ]),
    number("step", "mean time of a measured step", ({ stepSeconds }) => stepSeconds, formatTime),
    ...(baselineAlgorithm === undefined || baselines.size === 0
      ? []
      : [
          number(
            `vs ${displayName(baselineAlgorithm)}`,
            `step time of ${displayName(baselineAlgorithm)} at the same point, divided by this one's`,
            speedup,
            (ratio) => (Number.isNaN(ratio) ? "" : formatRatio(ratio))
          )
        ]),
    number(
      "computing",
      "compute time of a step, mean over ranks",
      ({ computeSeconds }) => computeSeconds,
      formatTime
    ),
    number(
      "waiting",
      "step minus computing: exposed communication and waits for slower ranks",
      ({ exposedCommunicationSeconds }) => exposedCommunicationSeconds,
      formatTime
    ),
    number("utilisation", "computing / step", ({ computeUtilisation }) => computeUtilisation, formatPercent),
    number(
      "sent per step",
      "bytes that one link of the busiest kind carries in a step",
      bytesPerStep,
      formatSize
    ),
    number(
      "ranks",
      "",
      ({ ranks }) => ranks,
      (ranks) => ranks.toLocaleString("en")
    ),
    {
      title: "digest",
      help: "equal for equal runs",
      numeric: false,
      sortBy: ({ digest }) => digest,
      text: ({ digest }) => digest.slice(0, 8)
    }
  ]
  const shown = rows.slice(0, ROWS_MAX)
  return markup`<div class="scroll"><table data-sortable>
<thead><tr>${columns.map(
    ({ title, help, numeric }) =>
      markup`<th scope="col"${numeric && markup` class="n"`}><button type="button"${
        help !== undefined && help !== "" && markup` title="${help}"`
      }>${title}</button></th>`
  )}</tr></thead>
<tbody>${shown.map(
    (row) =>
      markup`<tr>${columns.map(({ numeric, sortBy, text }) => {
        const value = sortBy(row)
        return numeric
          ? markup`<td class="n" data-v="${short(value)}">${text(row)}</td>`
          : markup`<td>${text(row)}</td>`
      })}</tr>\n`
  )}</tbody>
</table></div>${
    rows.length > shown.length &&
    markup`<p class="note">The first ${shown.length} of ${rows.length} rows; the study's CSV and Arrow files have all.</p>`
  }`
}

const short = (value: number | string): string =>
  typeof value === "string" ? value : Number.isNaN(value) ? "" : String(Number(value.toPrecision(9)))

const number = (
  title: string,
  help: string,
  of: (row: ReportRow) => number,
  print: (value: number) => string
): Column => ({ title, help, numeric: true, sortBy: of, text: (row) => print(of(row)) })
