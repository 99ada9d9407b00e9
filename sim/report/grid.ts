// Which axis of a study becomes what: the x axis of its charts, the lines in them, the small multiples beside each other.
// Knows nothing of pixels.
import { formatAxisValue } from "./format.ts"
import {
  targetPath,
  type AxisValue,
  type ReportAxis,
  type ReportRow,
  type StudyReport
} from "./study-report.ts"

interface Point {
  readonly x: AxisValue
  readonly row: ReportRow
}

export interface Series {
  readonly key: string
  /** For people: "DreamDDP". */
  readonly name: string
  /** What the scenario calls the algorithm, for its colour. */
  readonly algorithm: string
  /** x ascending where x is a number. */
  readonly points: ReadonlyArray<Point>
}

export interface Panel {
  /** What sets it apart: "latency 10 ms"; empty where there is only one. */
  readonly title: string
  readonly series: ReadonlyArray<Series>
}

export interface Grid {
  /** Numeric axis the lines run along; without one a report has bars. */
  readonly xAxis: ReportAxis | undefined
  readonly seriesAxis: ReportAxis | undefined
  readonly panels: ReadonlyArray<Panel>
  /** Axes that took one value only. */
  readonly fixed: ReadonlyArray<{ readonly axis: ReportAxis; readonly value: AxisValue }>
}

export type Names = Readonly<Record<string, string>>

/** What an algorithm is called in papers, settings in parentheses kept; other names stay as they are. */
export const displayName = (names: Names, name: string): string => {
  const end = name.indexOf(" (")
  const first = end < 0 ? name : name.slice(0, end)
  return Object.hasOwn(names, first) ? names[first]! + name.slice(first.length) : name
}

/** Lines in one chart; axes with more values get a small multiple for each. */
const SERIES_MAX = 10

const isNumeric = ({ unit }: ReportAxis, values: ReadonlyArray<AxisValue>): boolean =>
  unit !== "text" && values.every((value) => typeof value === "number" && !Number.isNaN(value))

/** The values of an axis that rows have, in the axis's order. */
const present = (axis: ReportAxis, rows: ReadonlyArray<ReportRow>): ReadonlyArray<AxisValue> => {
  const taken = new Set(rows.map(({ at }) => at[axis.path]))
  return [...new Set(axis.values)].filter((value) => taken.has(value))
}

/** Bandwidth before time before anything else numeric: what studies are mostly about. A search is about its targets. */
const xPreference = ({ path, unit }: ReportAxis): number =>
  path === targetPath ? 0 : unit === "bytesPerSecond" ? 1 : unit === "seconds" ? 2 : 3

export const gridOf = ({ axes, rows, family }: StudyReport): Grid => {
  const known = axes.map((axis) => ({ axis, values: present(axis, rows) }))
  const fixed = known
    .filter(({ values }) => values.length === 1)
    .map(({ axis, values }) => ({ axis, value: values[0]! }))
  const varying = known.filter(({ values }) => values.length > 1)
  const numeric = varying.filter(({ axis, values }) => isNumeric(axis, values))
  const x = numeric.toSorted((a, b) => xPreference(a.axis) - xPreference(b.axis))[0]
  const rest = varying.filter((candidate) => candidate !== x)
  const series =
    rest.find(({ axis }) => axis.path === "algorithm" || axis.path.startsWith("algorithm.name")) ??
    rest.find(({ axis, values }) => !isNumeric(axis, values) && values.length <= SERIES_MAX) ??
    rest.find(({ values }) => values.length <= SERIES_MAX)
  const panelAxes = rest.filter((candidate) => candidate !== series)

  const panels = new Map<string, { title: string; rows: Array<ReportRow> }>()
  for (const row of rows) {
    const values = panelAxes.map(({ axis }) => row.at[axis.path]!)
    const key = JSON.stringify(values)
    const title = panelAxes
      .map(({ axis }, index) => `${axis.label} ${formatAxisValue(values[index]!, axis.unit)}`)
      .join(", ")
    const panel = panels.get(key)
    if (panel === undefined) panels.set(key, { title, rows: [row] })
    else panel.rows.push(row)
  }
  return {
    xAxis: x?.axis,
    seriesAxis: series?.axis,
    fixed,
    panels: [...panels.values()].map(({ title, rows }) => ({
      title,
      series: seriesOf(rows, family.displayNames, x?.axis, series?.axis, series?.values)
    }))
  }
}

const seriesOf = (
  rows: ReadonlyArray<ReportRow>,
  names: Names,
  x: ReportAxis | undefined,
  axis: ReportAxis | undefined,
  values: ReadonlyArray<AxisValue> = []
): ReadonlyArray<Series> => {
  const groups = new Map<AxisValue, Array<ReportRow>>()
  for (const value of values) groups.set(value, [])
  for (const row of rows) {
    const value = axis === undefined ? row.algorithm : row.at[axis.path]!
    const group = groups.get(value)
    if (group === undefined) groups.set(value, [row])
    else group.push(row)
  }
  return [...groups]
    .filter(([, group]) => group.length > 0)
    .map(([value, group]) => {
      const points = group.map((row): Point => ({ x: x === undefined ? 0 : row.at[x.path]!, row }))
      return {
        key: String(value),
        name: axis === undefined ? displayName(names, String(value)) : seriesName(names, axis, value),
        algorithm: group[0]!.algorithm,
        points: points.toSorted((a, b) => Number(a.x) - Number(b.x))
      }
    })
}

const seriesName = (names: Names, axis: ReportAxis, value: AxisValue): string =>
  axis.unit === "text"
    ? displayName(names, String(value))
    : `${axis.label} ${formatAxisValue(value, axis.unit)}`
