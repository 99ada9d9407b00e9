// What a study comes to: one row per point (and target of a search), in the order of the points, whoever computed it.
// Knows nothing of how rows are stored or shown.
import { Digest } from "../../core/digest.ts"
import type { RunResult } from "../../scenarios/result.ts"
import type { Axis, Search, StudyDefinition } from "./definition.ts"
import type { Failure } from "./failure.ts"
import type { Crossing, Reached } from "./search.ts"

export interface Found {
  /** The field searched over. */
  readonly vary: string
  readonly metric: string
  readonly target: number
  /**
   * Of the grid values whose metric is at most the target, as written, the one next to the crossing: the largest where the
   * metric rises along the grid, the smallest where it falls. Null when there is none.
   */
  readonly value: unknown
  /** The same, decoded. */
  readonly decoded: unknown
  readonly reached: Reached
  readonly direction: Crossing["direction"]
}

export interface StudyRow extends RunResult {
  readonly point: number
  /** Value of each axis, as written; null where the field has no meaning at this point. */
  readonly axes: Readonly<Record<string, unknown>>
  /** The same in SI units where it is a quantity. */
  readonly values: Readonly<Record<string, unknown>>
  /** Only in a study that searches. The result is that of the value found, or of the smallest when none was. */
  readonly find?: Found
  /** Only where the run came to no end: then there are no numbers. */
  readonly failure?: Failure
}

/** What a study was, without the scenarios of its points: what its files carry. */
export interface StudyHeader {
  readonly name: string
  readonly identity: string
  readonly points: number
  readonly axes: ReadonlyArray<Axis>
  readonly search: Search | null
  readonly scenario: Readonly<Record<string, unknown>>
}

export interface StudyResult {
  readonly header: StudyHeader
  readonly rows: ReadonlyArray<StudyRow>
}

export const headerOf = (definition: StudyDefinition): StudyHeader => ({
  name: definition.name,
  identity: definition.identity,
  points: definition.points.length,
  axes: definition.axes,
  search: definition.search ?? null,
  scenario: definition.scenario
})

/** Equal for equal results, to the last bit of every number. */
export const digestOfRows = (rows: ReadonlyArray<StudyRow>): string => {
  const digest = new Digest()
  for (const row of rows) digest.text(JSON.stringify(row))
  return digest.hex
}

/** The rows of finished points in the order of a whole run. */
export const inOrder = (finished: ReadonlyMap<number, ReadonlyArray<StudyRow>>): ReadonlyArray<StudyRow> =>
  [...finished.keys()].toSorted((a, b) => a - b).flatMap((point) => finished.get(point) ?? [])
