// A point of a study whose run came to no end (memory that does not suffice, a deadlock): a row like any other, with the
// reason in place of numbers.
import { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../scenarios/families.ts"
import type { RunResult } from "../../scenarios/result.ts"
import type { StudyPoint } from "./definition.ts"
import type { StudyRow } from "./result.ts"

export interface Failure {
  /** Which error it was: "OutOfMemory", "Deadlock", ... */
  readonly kind: string
  readonly reason: string
}

/** Numbers that there are not. They are null in JSON, and cells without a value in tables. */
const nothing = Number.NaN

const withoutNumbers = (scenario: Scenario): RunResult => ({
  digest: "",
  scenario: scenario.name,
  task: scenario.task,
  algorithm: scenario.algorithm.name,
  ranks: nothing,
  makespanSeconds: nothing,
  peakBytes: { device: nothing, host: nothing },
  ops: nothing,
  links: [],
  estimates: [],
  warnings: []
})

export const failedRow = (point: StudyPoint, error: Error): StudyRow => ({
  point: point.index,
  axes: point.axes,
  values: point.values,
  failure: { kind: error instanceof InputError ? "InputError" : error.name, reason: error.message },
  ...withoutNumbers(point.grid[0]!.scenario)
})

const shortNames: Readonly<Record<string, string>> = {
  OutOfMemory: "no memory",
  Deadlock: "deadlock",
  InputError: "refused"
}

/** What stands in a table's cell. */
export const shortFailure = ({ kind }: Failure): string => shortNames[kind] ?? "failed"
