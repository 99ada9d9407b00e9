// Published tables of the bandwidth that a way of training needs for a compute utilisation: the same search by a study of
// scenarios/validate, compared cell by cell. The tables' values lie on a logarithmic grid, so cells are compared in steps of it.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { formatShare } from "../../core/units.ts"
import { alignColumns } from "../../scenarios/table.ts"
import type { Loader } from "../../scenarios/load.ts"
import { getField } from "../../scenarios/file/override.ts"
import { loadStudy, type Search, type StudyDefinition, type StudyPoint } from "../study/definition.ts"
import { evaluatePoint } from "../study/evaluate.ts"
import { readTable, shipped, type Claim, type Section, type ValidationError } from "./section.ts"

const numbers = Schema.Array(Schema.Number)

const PublishedTable = Schema.Struct({
  source: Schema.String,
  what: Schema.String,
  /** A study beside the table, whose points are the table's rows. */
  scenario: Schema.String,
  unit: Schema.Literal("Gbit/s"),
  targets: numbers,
  rows: Schema.Array(Schema.String),
  models: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      /** Overrides that make the study this model's. */
      set: Schema.Array(Schema.String),
      /** A row of each of `rows`, a column of each of `targets`. */
      values: Schema.Array(numbers)
    })
  )
})
type PublishedTable = typeof PublishedTable.Type

/** A way to read the table: which utilisation of the simulator's steady state answers to a target of the table. */
interface Reading {
  readonly name: string
  readonly steadyTarget: (target: number, scenario: DataParallelScenario) => number
  /** Every cell is within this many grid cells. */
  readonly withinCells: number
  /** At least this share of the cells is equal; no claim when absent. */
  readonly exactShare?: number
}

/** The table is of the steady state, as the simulator's result is. */
export const steadyState = (tolerance: Pick<Reading, "withinCells" | "exactShare">): Reading => ({
  name: "steady state",
  steadyTarget: (target) => target,
  ...tolerance
})

/**
 * The table is of a run of `steps` steps in which nothing waits for a synchronisation of the last step: of
 * floor((steps-1)/H) synchronisations rather than steps/H. With exposed time E per synchronisation and compute time C
 * per step, utilisation is steps C / (steps C + floor((steps-1)/H) E); the steady state's is H C / (H C + E). Exact, as
 * every synchronisation has ended before the next one begins (the layer that is needed first arrives last).
 */
export const finiteRun = (
  steps: number,
  tolerance: Pick<Reading, "withinCells" | "exactShare">
): Reading => ({
  name: `a run of ${steps} steps`,
  steadyTarget: (target, { algorithm }) => {
    if (!("period" in algorithm)) return target
    const synchronisations = Math.floor((steps - 1) / algorithm.period)
    return 1 / (1 + ((1 / target - 1) * steps) / (algorithm.period * synchronisations))
  },
  ...tolerance
})

export interface BandwidthTableOptions {
  readonly name: string
  readonly calibrated?: boolean
  readonly title: string
  /** The published table's file. */
  readonly table: string
  readonly readings: ReadonlyArray<Reading>
  readonly notes: ReadonlyArray<string>
  /** Further overrides by model name: what if the table's inputs were other ones? */
  readonly set?: Readonly<Record<string, ReadonlyArray<string>>>
}

export interface Cell {
  readonly model: string
  readonly row: string
  readonly reading: string
  readonly target: number
  /** As printed. */
  readonly publishedGbits: number
  /** Largest grid value whose utilisation is at most the target; null when already the smallest one's is above. */
  readonly simulatedGbits: number | null
  /** Simulated minus published, in cells of the grid; the published value is the grid's nearest. */
  readonly cells: number
}

export const bandwidthTable = (options: BandwidthTableOptions): Section => ({
  name: options.name,
  calibrated: options.calibrated ?? false,
  title: options.title,
  open: Effect.map(readTable(options.table, PublishedTable), (table) => ({
    points: table.models.length * table.rows.length,
    check: (loader, done) =>
      Effect.map(
        Effect.forEach(table.models, (model) => modelCells(options, table, model, loader, done)),
        (byModel) => {
          const cells = byModel.flat()
          return {
            source: table.source,
            claims: options.readings.flatMap((reading) =>
              claimsOf(
                reading,
                cells.filter((cell) => cell.reading === reading.name)
              )
            ),
            lines: table.models.flatMap((model) =>
              options.readings.flatMap((reading) => printCells(table, model, reading, cells))
            ),
            notes: options.notes,
            values: cells.map((cell) => ({ ...cell }))
          }
        }
      )
  }))
})

const modelCells = (
  options: BandwidthTableOptions,
  table: PublishedTable,
  model: PublishedTable["models"][number],
  loader: Loader,
  done: () => void
): Effect.Effect<ReadonlyArray<Cell>, ValidationError> =>
  Effect.gen(function* () {
    const file = shipped(table.scenario)
    const study = yield* loadStudy(file, [...model.set, ...(options.set?.[model.name] ?? [])])
    const { search } = study
    if (search === undefined || study.points.length !== table.rows.length) {
      return yield* new InputError({
        file,
        field: "study",
        value: `${study.points.length} points`,
        accepted: `a search at ${table.rows.length} points, the rows of ${options.table}`
      })
    }
    const cells: Array<Cell> = []
    for (const [index, row] of table.rows.entries()) {
      const published = model.values[index] ?? []
      cells.push(
        ...(yield* rowCells({ options, table, study, search, loader }, study.points[index]!, published)).map(
          (cell) => ({ model: model.name, row, ...cell })
        )
      )
      done()
      // Lets signals in.
      yield* Effect.yieldNow
    }
    return cells
  })

interface RowContext {
  readonly options: BandwidthTableOptions
  readonly table: PublishedTable
  readonly study: StudyDefinition
  readonly search: Search
  readonly loader: Loader
}

const rowCells = (
  { options, table, study, search, loader }: RowContext,
  point: StudyPoint,
  published: ReadonlyArray<number>
) =>
  Effect.gen(function* () {
    const { scenario } = point.grid[0]!
    if (scenario.task !== "data-parallel")
      throw new RangeError("the table's study is of data-parallel training")
    const wanted = options.readings.flatMap((reading) =>
      table.targets.map((target, column) => ({
        reading,
        target,
        published: published[column]!,
        steadyTarget: reading.steadyTarget(target, scenario)
      }))
    )
    const rows = yield* evaluatePoint(point, {
      file: study.file,
      search: { ...search, targets: wanted.map(({ steadyTarget }) => steadyTarget) },
      loader
    })
    const grid = point.grid.map(({ scenario }) => toGbits(getField(scenario, search.vary.split("."))))
    return wanted.map(({ reading, target, published }, i) => {
      const found = rows[i]?.find?.value ?? null
      const at = point.grid.findIndex(({ value }) => value === found)
      return {
        reading: reading.name,
        target,
        publishedGbits: published,
        simulatedGbits: at < 0 ? null : grid[at]!,
        cells: at - nearest(grid, published)
      }
    })
  })

const toGbits = (bytesPerSecond: unknown): number =>
  typeof bytesPerSecond === "number" ? (bytesPerSecond * 8) / 1e9 : Number.NaN

/** Index of the grid value whose ratio to `value` is nearest to 1. */
const nearest = (grid: ReadonlyArray<number>, value: number): number => {
  let best = 0
  const ratio = (i: number): number => Math.max(grid[i]! / value, value / grid[i]!)
  for (let i = 1; i < grid.length; i++) if (ratio(i) < ratio(best)) best = i
  return best
}

const claimsOf = (reading: Reading, cells: ReadonlyArray<Cell>): ReadonlyArray<Claim> => {
  const within = cells.filter((cell) => Math.abs(cell.cells) <= reading.withinCells).length
  const exact = cells.filter((cell) => cell.cells === 0).length
  const equal = `${exact} (${formatShare(exact / cells.length)}) are equal`
  const claims: Array<Claim> = [
    {
      claim: `read as ${reading.name}: every cell within ${reading.withinCells === 1 ? "one grid cell" : `${reading.withinCells} grid cells`}`,
      holds: cells.length > 0 && within === cells.length,
      found: `${within} of ${cells.length}${reading.exactShare === undefined ? `; ${equal}` : ""}`
    }
  ]
  if (reading.exactShare !== undefined) {
    claims.push({
      claim: `read as ${reading.name}: at least ${Math.round(reading.exactShare * 100)} % of the cells equal`,
      holds: exact >= reading.exactShare * cells.length,
      found: `${exact} of ${cells.length} (${formatShare(exact / cells.length)})`
    })
  }
  return claims
}

const printCells = (
  table: PublishedTable,
  model: PublishedTable["models"][number],
  reading: Reading,
  cells: ReadonlyArray<Cell>
): ReadonlyArray<string> => {
  const rows = table.rows.map((row) => [
    `  ${row}`,
    ...cells
      .filter((cell) => cell.model === model.name && cell.row === row && cell.reading === reading.name)
      .map(
        ({ publishedGbits, simulatedGbits, cells }) =>
          `${publishedGbits.toFixed(1)} ${(simulatedGbits?.toFixed(1) ?? "none").padStart(5)} ${offBy(cells)}`
      )
  ])
  const head = ["  Gbit/s: published, simulated, cells off", ...table.targets.map((t) => `${t * 100} %   `)]
  return [`${model.name} (${model.set.join(", ")}), ${reading.name}`, ...alignColumns([head, ...rows]), ""]
}

const offBy = (cells: number): string => (cells === 0 ? " =" : `${cells > 0 ? "+" : "-"}${Math.abs(cells)}`)
