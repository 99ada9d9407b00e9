// A run that came to no end (memory that does not suffice, a deadlock), of a study or beside others: a result like any other, with the
// reason in place of numbers.
import { InputError } from "../../core/input-error.ts"
import { OutOfMemory } from "../../core/machine/machine.ts"
import type { AnyScenario } from "../../scenarios/family.ts"
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

/** A result of which nothing but these is known. */
export const withoutNumbers = (known: Pick<RunResult, "scenario" | "task" | "algorithm">): RunResult => ({
  digest: "",
  scenario: known.scenario,
  task: known.task,
  algorithm: known.algorithm,
  ranks: nothing,
  makespanSeconds: nothing,
  peakBytes: { device: nothing, host: nothing },
  ops: nothing,
  links: [],
  estimates: [],
  warnings: []
})

interface Failed {
  readonly failure: Failure
  readonly details?: NonNullable<RunResult["details"]>
}

/** The reason, and, where memory did not suffice and it is known, how much would have. */
export const failureOf = (error: Error): Failed => ({
  failure: { kind: error instanceof InputError ? "InputError" : error.name, reason: error.message },
  ...(error instanceof OutOfMemory && error.heldBytes !== undefined
    ? {
        details: {
          memory: { heldBytes: error.heldBytes, capacityBytes: error.capacityBytes, fits: false }
        }
      }
    : {})
})

/** What the run of a scenario comes to that failed with `error`. */
export const failedResult = ({ name, task, algorithm }: AnyScenario, error: Error): RunResult & Failed => ({
  ...withoutNumbers({ scenario: name, task, algorithm: algorithm.name }),
  ...failureOf(error)
})

export const failedRow = (point: StudyPoint, error: Error): StudyRow => ({
  point: point.index,
  axes: point.axes,
  values: point.values,
  ...failedResult(point.grid[0]!.scenario, error)
})

const shortNames: Readonly<Record<string, string>> = {
  OutOfMemory: "no memory",
  Deadlock: "deadlock",
  InputError: "refused"
}

/** What stands in a table's cell. */
export const shortFailure = ({ kind }: Failure): string => shortNames[kind] ?? "failed"
