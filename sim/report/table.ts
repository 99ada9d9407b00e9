// All rows of a study as a table that the page's script can sort. Plain without it.
import type { Metric } from "../../scenarios/family.ts"
import { metricOf } from "../../scenarios/result.ts"
import { costOf, headlineOf } from "./answer.ts"
import { formatAxisValue, formatRatio, formatSize } from "./format.ts"
import { displayName, type Grid, type Names } from "./grid.ts"
import { markup, type Markup } from "./markup.ts"
import { linkBytesLabel, linkBytesPerStep } from "../link-traffic.ts"
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

const axisColumn = (names: Names, { path, label, unit }: ReportAxis): Column => {
  const numeric = unit !== "text"
  return {
    title: label,
    numeric,
    sortBy: ({ at }) => at[path] ?? "",
    text: ({ at }) => {
      const value = at[path]
      if (value === undefined) return ""
      return path === "algorithm" ? displayName(names, String(value)) : formatAxisValue(value, unit)
    }
  }
}

export const table = (
  { rows, axes, search, family }: StudyReport,
  { fixed }: Grid,
  baselineAlgorithm: string | undefined
): Markup => {
  const names = family.displayNames
  const headline = headlineOf(family.metrics)
  const cost = costOf(headline)
  const varying = axes.filter((axis) => !fixed.some((other) => other.axis === axis))
  const others = varying.filter(({ path }) => path !== "algorithm")
  // Rows that differ from each other in the algorithm alone share their other values.
  const placeOf = ({ at }: ReportRow): string => JSON.stringify(others.map(({ path }) => at[path]))
  const baselines = new Map(
    rows.filter(({ algorithm }) => algorithm === baselineAlgorithm).map((row) => [placeOf(row), cost(row)])
  )
  const speedup = (row: ReportRow): number => (baselines.get(placeOf(row)) ?? NaN) / cost(row)
  const columns: ReadonlyArray<Column> = [
    ...(varying.some(({ path }) => path === "algorithm")
      ? []
      : [
          {
            title: "algorithm",
            numeric: false,
            sortBy: ({ algorithm }: ReportRow) => algorithm,
            text: ({ algorithm }: ReportRow) => displayName(names, algorithm)
          }
        ]),
    ...varying.map((axis) => axisColumn(names, axis)),
    ...(search === undefined
      ? []
      : [
          number(
            search.label,
            `largest value tried at which ${search.metric} is at most the target`,
            ({ found }) => found ?? NaN,
            (found) => (Number.isNaN(found) ? "none tried" : formatAxisValue(found, search.unit))
          )
        ]),
    metricColumn(headline),
    ...(baselineAlgorithm === undefined || baselines.size === 0
      ? []
      : [
          number(
            `vs ${displayName(names, baselineAlgorithm)}`,
            `how many times as good as ${displayName(names, baselineAlgorithm)} at the same point`,
            speedup,
            (ratio) => (Number.isNaN(ratio) ? "" : formatRatio(ratio))
          )
        ]),
    ...family.metrics.slice(1).map(metricColumn),
    ...(rows.some(({ steps }) => steps !== undefined)
      ? [
          number(
            linkBytesLabel(rows),
            "bytes a step that the busiest link of the outermost tier in use carries",
            (row) => linkBytesPerStep(row) ?? NaN,
            (bytes) => (Number.isNaN(bytes) ? "" : formatSize(bytes))
          )
        ]
      : []),
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

const metricColumn = ({ name, label, unit, description }: Metric): Column =>
  number(
    label,
    description,
    (row) => metricOf(row, name),
    (value) => (Number.isNaN(value) ? "" : formatAxisValue(value, unit))
  )

const short = (value: number | string): string =>
  typeof value === "string" ? value : Number.isNaN(value) ? "" : String(Number(value.toPrecision(9)))

const number = (
  title: string,
  help: string,
  of: (row: ReportRow) => number,
  print: (value: number) => string
): Column => ({ title, help, numeric: true, sortBy: of, text: (row) => print(of(row)) })
