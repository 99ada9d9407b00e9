// The rows of a study as a table of columns: the one description that study.csv and study.arrow share. Knows nothing of
// files.
import { familyOf } from "../../scenarios/families.ts"
import { metricOf } from "../../scenarios/result.ts"
import type { StudyHeader, StudyRow } from "./result.ts"

export interface StudyColumn {
  readonly name: string
  readonly kind: "int32" | "float64" | "text"
  readonly description: string
  /** Null: no value in this row. */
  readonly of: (row: StudyRow) => string | number | null
}

/** A value of an axis as it would be written in a scenario. */
const writtenText = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value))

const textOrNull = (value: unknown): string | null =>
  value === null || value === undefined ? null : writtenText(value)

const numberOrNull = (value: unknown): number | null =>
  typeof value === "number" && !Number.isNaN(value) ? value : null

/** A quantity: what it decodes to is not what was written. */
const isQuantity = (written: unknown, decoded: unknown): boolean =>
  typeof decoded === "number" && written !== decoded

/** Columns of a study's table: its axes first, each quantity as written and in SI units, then the result. */
export const studyColumns = (
  header: StudyHeader,
  rows: ReadonlyArray<StudyRow>
): ReadonlyArray<StudyColumn> => {
  const text = (name: string, description: string, of: StudyColumn["of"]): StudyColumn => ({
    name,
    kind: "text",
    description,
    of
  })
  const number = (name: string, description: string, of: StudyColumn["of"]): StudyColumn => ({
    name,
    kind: "float64",
    description,
    of
  })
  const whole = (name: string, description: string, of: StudyColumn["of"]): StudyColumn => ({
    name,
    kind: "int32",
    description,
    of
  })
  const axes = header.axes.flatMap(({ path }) => {
    const written = text(path, "axis value as written", (row) => textOrNull(row.axes[path]))
    const si = number(`${path} (SI)`, "the same in SI units", (row) => numberOrNull(row.values[path]))
    return rows.some((row) => isQuantity(row.axes[path], row.values[path])) ? [written, si] : [written]
  })
  const { search } = header
  const find =
    search === null
      ? []
      : [
          number("find.target", `target of ${search.metric}`, (row) => numberOrNull(row.find?.target)),
          text(
            `find.${search.vary}`,
            "value next to the crossing at which the metric is at most the target",
            (row) => textOrNull(row.find?.value)
          ),
          number(`find.${search.vary} (SI)`, "the same in SI units", (row) =>
            numberOrNull(row.find?.decoded)
          ),
          text(
            "find.reached",
            "inside the grid, everywhere on it, nowhere, or unclear",
            (row) => row.find?.reached ?? null
          ),
          text(
            "find.direction",
            "whether the metric rises or falls along the grid",
            (row) => row.find?.direction ?? null
          )
        ]
  const taken = new Set([...axes, ...find].map(({ name }) => name))
  const results = [
    text("name", "name of the algorithm", (row) => row.algorithm),
    whole("ranks", "number of ranks", (row) => numberOrNull(row.ranks)),
    ...(rows.some((row) => row.network !== undefined)
      ? [text("network", "network model", (row) => row.network ?? null)]
      : []),
    ...(rows.some((row) => row.collectives !== undefined)
      ? [text("collectives", "how collectives are expanded", (row) => row.collectives ?? null)]
      : []),
    ...(rows.some((row) => row.steps !== undefined)
      ? [
          whole("steps", "steps measured", (row) => row.steps ?? null),
          whole("warmupSteps", "steps before them", (row) => row.warmupSteps ?? null)
        ]
      : []),
    ...(rows[0] === undefined ? [] : familyOf(rows[0]).metrics).map(({ name, description, unit }) =>
      number(name, unit === "seconds" ? `${description}, s` : description, (row) =>
        numberOrNull(metricOf(row, name))
      )
    ),
    ...throughputs(rows).map(({ name, description }) =>
      number(name, description, (row) => numberOrNull(metricOf(row, name)))
    ),
    number("makespanSeconds", "whole run, warm-up included, s", (row) => numberOrNull(row.makespanSeconds)),
    number("ops", "operations of all ranks", (row) => numberOrNull(row.ops)),
    ...(rows.some((row) => row.details !== undefined)
      ? [
          text("details", "what is not a single number, as JSON", (row) =>
            JSON.stringify(row.details ?? null)
          )
        ]
      : []),
    text("links", "traffic of each link as JSON: name, tier, count, bytes, busySeconds", (row) =>
      JSON.stringify(row.links)
    ),
    text("estimates", "costs that were not measured, as JSON", (row) => JSON.stringify(row.estimates)),
    text("warnings", "warnings as JSON", (row) => JSON.stringify(row.warnings)),
    ...(rows.some((row) => row.failure !== undefined)
      ? [text("failure", "why the point has no numbers", (row) => row.failure?.reason ?? null)]
      : []),
    text("digest", "digest of the point's run", (row) => (row.failure === undefined ? row.digest : null))
  ]
  return [
    whole("point", "index of the point in the study", (row) => row.point),
    ...axes,
    ...find,
    // An axis keeps the name of its field; a result that has the same one is told apart.
    ...results.map((column) =>
      taken.has(column.name) ? { ...column, name: `result.${column.name}` } : column
    )
  ]
}

/** Of rows that say how much their steps do: that, and how much in a second. */
const throughputs = (
  rows: ReadonlyArray<StudyRow>
): ReadonlyArray<{ readonly name: string; readonly description: string }> => {
  const own = rows[0] === undefined ? undefined : familyOf(rows[0]).throughput
  if (own === undefined || rows.every((row) => Number.isNaN(metricOf(row, own.work)))) return []
  return [{ name: own.work, description: `what ${own.metric.name} counts, in a step` }, own.metric]
}
