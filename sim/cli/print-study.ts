// A study's rows as tables for a person: one axis down, the algorithms (or whatever varies last) across, the best of each
// line marked. Further axes make a table each.
import { printEstimates } from "../../core/cost/provenance.ts"
import { formatBandwidth, formatBytes, counted } from "../../core/units.ts"
import { familyOf } from "../../scenarios/families.ts"
import { formatMetric } from "../../scenarios/metric.ts"
import { metricOf } from "../../scenarios/result.ts"
import { fastestThatFit, headlineOf, metricsOf } from "../study/compared.ts"
import { shortFailure } from "../study/failure.ts"
import type { StudyResult, StudyRow } from "../study/result.ts"
import { labelOf, lastName, shortNames } from "../study/label.ts"
import { ofPoints, talliedWarnings } from "../study/tallied.ts"
import { alignColumns } from "../../scenarios/table.ts"

export const printStudy = ({ header, rows }: StudyResult): string => {
  const body =
    header.search === null
      ? pivots(
          header.axes.map(({ path }) => path),
          rows
        ).concat(fitting(header, rows))
      : found(header, rows)
  return [`${header.name}: ${describe(header, rows)}`, "", ...body, ...notes(rows), ""].join("\n")
}

const describe = (header: StudyResult["header"], rows: ReadonlyArray<StudyRow>): string => {
  const points = new Set(rows.map(({ point }) => point)).size
  const name = shortNames(header.axes.map(({ path }) => path))
  const over = header.axes.map(({ path, values }) => `${values.length} x ${name(path)}`).join(", ")
  const part =
    points === header.points ? counted(points, "point") : `${points} of ${counted(header.points, "point")}`
  return over === "" ? part : `${part} (${over})`
}

const pivots = (paths: ReadonlyArray<string>, rows: ReadonlyArray<StudyRow>): ReadonlyArray<string> => {
  const name = shortNames(paths)
  const across = paths.find((path) => path === "algorithm") ?? paths.at(-1)
  if (across === undefined) return []
  const others = paths.filter((path) => path !== across)
  // The numeric axis with most values goes down; what remains makes a table for each combination.
  const down = others.toSorted((a, b) => distinct(rows, b).length - distinct(rows, a).length)[0]
  if (down === undefined) return list(name(across), across, rows)
  const outer = others.filter((path) => path !== down)
  const groups = Map.groupBy(rows, (row) =>
    outer.map((path) => `${name(path)} ${labelOf(row.axes[path])}`).join(", ")
  )
  return [...groups].flatMap(([title, group], index) => [
    ...(index === 0 ? [] : [""]),
    ...(title === "" ? [] : [title]),
    ...pivot(down, across, group, name)
  ])
}

const distinct = (rows: ReadonlyArray<StudyRow>, path: string): ReadonlyArray<string> => [
  ...new Set(rows.map((row) => labelOf(row.axes[path])))
]

const pivot = (
  down: string,
  across: string,
  rows: ReadonlyArray<StudyRow>,
  name: (path: string) => string
): ReadonlyArray<string> => {
  const headline = headlineOf(rows)
  const hindsight = rows[0] === undefined ? [] : (familyOf(rows[0]).hindsight ?? [])
  const columns = distinct(rows, across)
  const lines = distinct(rows, down).map((value) => {
    const own = rows.filter((row) => labelOf(row.axes[down]) === value)
    const values = own
      .filter(({ algorithm }) => !hindsight.includes(algorithm))
      .map((row) => metricOf(row, headline.name))
      .filter((found) => !Number.isNaN(found))
    const best = headline.better === "lower" ? Math.min(...values) : Math.max(...values)
    return [
      value,
      ...columns.map((column) => {
        const row = own.find((candidate) => labelOf(candidate.axes[across]) === column)
        if (row === undefined) return "  "
        if (row.failure !== undefined) return `${shortFailure(row.failure)}  `
        const found = metricOf(row, headline.name)
        const isBest = own.length > 1 && found === best && !hindsight.includes(row.algorithm)
        return `${formatMetric(found, headline.unit)}${isBest ? " *" : "  "}`
      })
    ]
  })
  const head = [name(down), ...columns.map((column) => `${column}  `)]
  const superlative =
    headline.unit === "seconds"
      ? headline.better === "lower"
        ? "shortest"
        : "longest"
      : headline.better === "lower"
        ? "lowest"
        : "highest"
  const unmarked = [...new Set(rows.map(({ algorithm }) => algorithm))].filter((algorithm) =>
    hindsight.includes(algorithm)
  )
  const except = unmarked.length === 0 ? "" : ` but for what knows the future: ${unmarked.join(", ")}`
  return [
    `${headline.label} by ${name(down)} and ${name(across)}; * is the ${superlative} of a line${except}`,
    ...alignColumns([head, ...lines])
  ]
}

const list = (title: string, across: string, rows: ReadonlyArray<StudyRow>): ReadonlyArray<string> => {
  const metrics = metricsOf(rows)
  return alignColumns([
    [title, ...metrics.map(({ label }) => label)],
    ...rows.map((row) => [
      labelOf(row.axes[across]),
      ...metrics.map(({ name, unit }, i) =>
        i === 0 && row.failure !== undefined
          ? shortFailure(row.failure)
          : formatMetric(metricOf(row, name), unit)
      )
    ])
  ])
}

/** Of what can be chosen, the fastest that fits, under each of the conditions. */
const fitting = (header: StudyResult["header"], rows: ReadonlyArray<StudyRow>): ReadonlyArray<string> => {
  const all = fastestThatFit(header, rows)
  if (all.length === 0) return []
  const name = shortNames(header.axes.map(({ path }) => path))
  const said = (values: Readonly<Record<string, unknown>>) =>
    Object.entries(values)
      .map(([path, value]) => `${name(path)} ${labelOf(value)}`)
      .join(", ")
  const { label, unit, name: metric } = headlineOf(rows)
  return [
    "",
    `fastest that fits, by ${label}`,
    ...all.map(({ conditions, choices, row, heldBytes, capacityBytes, fit, points }) => {
      const where = said(conditions)
      const found =
        row === undefined
          ? "none"
          : `${said(choices)}: ${formatMetric(metricOf(row, metric), unit)}, ${formatBytes(heldBytes)} of ${formatBytes(capacityBytes)}`
      return `  ${where === "" ? "" : `${where}: `}${found} (${fit} of ${counted(points, "point")} fit)`
    })
  ]
}

/** What each point of a search needs for each target. */
const found = (
  { search, axes }: StudyResult["header"],
  rows: ReadonlyArray<StudyRow>
): ReadonlyArray<string> => {
  if (search === null) return []
  const label = (row: StudyRow) => axes.map(({ path }) => labelOf(row.axes[path])).join(", ")
  const groups = Map.groupBy(rows, ({ point }) => point)
  const lines = [...groups.values()].map((group) => [
    label(group[0]!),
    ...search.targets.map((target) => {
      const row = group.find(({ find, failure }) => failure !== undefined || find?.target === target)
      return foundText(row)
    })
  ])
  const metric = metricsOf(rows).find(({ name }) => name === search.metric)
  const head = [
    axes.map(({ path }) => lastName(path)).join(", "),
    ...search.targets.map((target) => formatMetric(target, metric?.unit ?? "number"))
  ]
  const directions = new Set(rows.flatMap(({ find }) => (find === undefined ? [] : [find.direction])))
  const which = directions.has("rises") ? (directions.has("falls") ? "last" : "largest") : "smallest"
  return [
    `${which} ${lastName(search.vary)} of the grid at which ${search.metric} is at most`,
    ...alignColumns([head, ...lines]),
    ...(rows.some(({ find }) => find?.reached === "everywhere")
      ? [
          "",
          `>= or <=: an end of the grid, up to which ${search.metric} is at most that; no crossing was found`
        ]
      : []),
    ...(rows.some(({ find }) => find?.reached === "nowhere")
      ? ["", `< grid, > grid: ${search.metric} is more than that on the whole grid`]
      : []),
    ...(rows.some(({ find }) => find?.reached === "unclear")
      ? [
          "",
          `unclear: ${search.metric} neither rises nor falls along the grid; list its values on an axis instead`
        ]
      : [])
  ]
}

/** The value found, rounded as a person reads it; a grid's own values have more digits than they deserve. */
const foundText = (row: StudyRow | undefined): string => {
  if (row?.failure !== undefined) return shortFailure(row.failure)
  const find = row?.find
  if (find === undefined) return "-"
  const { value, decoded, reached, direction } = find
  const rises = direction === "rises"
  if (reached === "unclear") return "unclear"
  if (reached === "nowhere") return rises ? "< grid" : "> grid"
  const text =
    typeof decoded === "number" && String(value).endsWith("bit/s") ? formatBandwidth(decoded) : String(value)
  return reached === "everywhere" ? `${rises ? ">=" : "<="} ${text}` : text
}

/** Warnings and estimates once each, not once for every point. */
const notes = (rows: ReadonlyArray<StudyRow>): ReadonlyArray<string> => {
  const warnings = new Set(
    talliedWarnings(rows).map(({ text, points }) => {
      const told = ofPoints(points, rows)
      return told === "" ? text : `${text} (${told})`
    })
  )
  const estimates = new Set(printEstimates(rows.flatMap((row) => row.estimates)))
  const failures = new Set(
    rows.flatMap(({ axes, failure }) =>
      failure === undefined ? [] : [`${Object.values(axes).map(labelOf).join(", ")}: ${failure.reason}`]
    )
  )
  const section = (title: string, lines: ReadonlySet<string>) =>
    lines.size === 0
      ? []
      : [
          "",
          title,
          ...[...lines].slice(0, 12).map((line) => `  ${line}`),
          ...(lines.size > 12 ? [`  and ${lines.size - 12} more`] : [])
        ]
  return [
    ...section("points that cannot run", failures),
    ...section("not measured", estimates),
    ...section("warnings", warnings)
  ]
}
