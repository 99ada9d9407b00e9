// One point of a study: runs its scenario, or searches its grid. The same in this process and in a worker.
import * as Effect from "effect/Effect"
import type { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { withIgnoredFields } from "../../scenarios/families.ts"
import type { Loader } from "../../scenarios/load.ts"
import { metricOf, type RunResult } from "../../scenarios/result.ts"
import { runScenario } from "../run.ts"
import { getField } from "../../scenarios/file/override.ts"
import type { GridPoint, Search, StudyPoint } from "./definition.ts"
import { failedRow } from "./failure.ts"
import type { Found, StudyRow } from "./result.ts"
import { crossing, type Crossing } from "./search.ts"

interface Evaluation {
  readonly file: string
  readonly search: Search | undefined
  readonly loader: Loader
}

/** The rows of one point: one, or one for each target; one with the reason where it cannot run. */
export const evaluatePoint = (
  point: StudyPoint,
  { file, search, loader }: Evaluation
): Effect.Effect<ReadonlyArray<StudyRow>> => {
  const run = (scenario: Scenario) =>
    Effect.map(runScenario(scenario, file, { loader }), ({ result }) => withIgnoredFields(result, scenario))
  const rows =
    search === undefined
      ? Effect.map(run(point.grid[0]!.scenario), (result) => [rowOf(point, result)])
      : searchGrid(point, search, run)
  return rows.pipe(
    Effect.catch((error) => Effect.succeed([failedRow(point, error)])),
    Effect.map(plain)
  )
}

const rowOf = (point: StudyPoint, result: RunResult, find?: Found): StudyRow => ({
  point: point.index,
  axes: point.axes,
  values: point.values,
  ...(find === undefined ? {} : { find }),
  ...result
})

/** For each target, where the metric crosses it. */
const searchGrid = (
  point: StudyPoint,
  search: Search,
  run: (scenario: Scenario) => Effect.Effect<RunResult, InputError | MachineError>
) =>
  Effect.gen(function* () {
    const { grid } = point
    const known = new Map<number, RunResult>()
    const resultAt = (index: number) =>
      Effect.suspend(() => {
        const result = known.get(index)
        if (result !== undefined) return Effect.succeed(result)
        return Effect.tap(run(grid[index]!.scenario), (fresh) => Effect.sync(() => known.set(index, fresh)))
      })
    const rows: Array<StudyRow> = []
    for (const target of search.targets) {
      const found = yield* crossing(grid.length, target, (index) =>
        Effect.map(resultAt(index), (result) => metricOf(result, search.metric))
      )
      const result = yield* resultAt(found.index ?? 0)
      rows.push(rowOf(point, result, foundAt(search, target, found, grid)))
    }
    return rows
  })

const foundAt = (
  { vary, metric }: Search,
  target: number,
  { index, reached, direction }: Crossing,
  grid: ReadonlyArray<GridPoint>
): Found => {
  const point = index === undefined ? undefined : grid[index]
  const decoded = point === undefined ? null : getField(point.scenario, vary.split("."))
  return {
    vary,
    metric,
    target,
    value: point?.value ?? null,
    decoded: typeof decoded === "number" ? decoded : (point?.value ?? null),
    reached,
    direction
  }
}

/** As it is after a journey through JSON: a row read back from a file equals one just computed. */
const plain = (rows: ReadonlyArray<StudyRow>): ReadonlyArray<StudyRow> =>
  JSON.parse(JSON.stringify(rows)) as ReadonlyArray<StudyRow>
