// What saved results and studies must say of themselves to be read back, with what is wrong where they do not: by other versions, by
// hand, or on a disk that lost something. Fields that are not known are left alone.
import * as Schema from "effect/Schema"
import { mostPoints } from "../../core/bounds.ts"
import { Amount, Count, Ranks } from "../../core/fields.ts"
import { defaultTask, familyOf, isTask, tasks } from "../../scenarios/families.ts"
import { problemsOf, show, type Problem } from "../../scenarios/file/check.ts"
import { isRecord, oneOf, shapeOf } from "../../scenarios/file/shape.ts"
import type { RunResult } from "../../scenarios/result.ts"
import type { StudyHeader } from "./result.ts"

/** What results of other versions, made by hand, or of runs that came to no end may lack. */
export type SavedResult = Partial<RunResult> &
  Pick<RunResult, "algorithm"> & { readonly failure?: { readonly kind?: string; readonly reason: string } }

const Texts = Schema.Array(Schema.String)
const Values = Schema.Record(Schema.String, Schema.Unknown)

/** Of every result. */
const common = {
  scenario: Schema.optionalKey(Schema.String),
  algorithm: Schema.NonEmptyString,
  warnings: Schema.optionalKey(Texts),
  details: Schema.optionalKey(Values),
  /** Of a row of a study. */
  point: Schema.optionalKey(Count),
  axes: Schema.optionalKey(Values),
  values: Schema.optionalKey(Values),
  find: Schema.optionalKey(
    Schema.Struct({ vary: Schema.String, metric: Schema.String, target: Schema.Finite })
  )
}

/** Of one that has its reason in place of numbers. */
const Failed = Schema.Struct({
  ...common,
  failure: Schema.Struct({ kind: Schema.optionalKey(Schema.String), reason: Schema.String })
})

const ended = {
  ...common,
  digest: Schema.String,
  ranks: Ranks,
  network: Schema.optionalKey(Schema.String),
  collectives: Schema.optionalKey(Schema.String),
  steps: Schema.optionalKey(Amount),
  warmupSteps: Schema.optionalKey(Amount),
  makespanSeconds: Schema.optionalKey(Amount),
  peakBytes: Schema.optionalKey(Schema.Struct({ device: Amount, host: Amount })),
  ops: Schema.optionalKey(Amount),
  links: Schema.Array(
    Schema.Struct({
      name: Schema.optionalKey(Schema.String),
      tier: Schema.optionalKey(Schema.String),
      count: Amount,
      bytes: Amount,
      busySeconds: Schema.optionalKey(Amount)
    })
  ),
  estimates: Schema.optionalKey(
    Schema.Array(Schema.Struct({ kernel: Schema.String, source: Schema.String, detail: Schema.String }))
  )
}

const checked = (schema: Schema.Struct<Schema.Struct.Fields>) => {
  const accepts = Schema.is(schema)
  const shape = shapeOf(schema)
  return (value: unknown): ReadonlyArray<Problem> =>
    accepts(value) ? [] : problemsOf(shape, value).filter(({ atKey }) => !atKey)
}

const whyNotFailed = checked(Failed)
const whyNotEnded = new Map(
  tasks.map((task) => {
    const metrics = familyOf({ task }).metrics.map(({ name }) => [name, Schema.optionalKey(Amount)] as const)
    return [task, checked(Schema.Struct({ ...ended, ...Object.fromEntries(metrics) }))]
  })
)

/** Whether a file's content calls itself a result: scenarios have no such fields. */
export const saysResult = (value: unknown): value is Readonly<Record<string, unknown>> =>
  isRecord(value) && ("digest" in value || "failure" in value)

/** What is wrong with a saved result; nothing where it is a `SavedResult`. */
export const whyNotResult = (value: unknown): ReadonlyArray<Problem> => {
  if (!isRecord(value)) return [{ path: [], atKey: false, value: show(value), accepted: "a result" }]
  const task = value["task"] ?? defaultTask
  if (typeof task !== "string" || !isTask(task))
    return [{ path: ["task"], atKey: false, value: show(task), accepted: oneOf(tasks) }]
  if (value["failure"] !== undefined) return whyNotFailed(value)
  // A number that a result has not is null.
  const said = Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null))
  const missing = familyOf({ task }).metrics.flatMap(({ name }): ReadonlyArray<Problem> =>
    value[name] === undefined
      ? [
          {
            path: [name],
            atKey: false,
            value: undefined,
            accepted: `a number, or null where there is none (it is missing)`
          }
        ]
      : []
  )
  return [...missing, ...whyNotEnded.get(task)!(said)]
}

const whyNotHeaderOf = checked(
  Schema.Struct({
    name: Schema.String,
    identity: Schema.NonEmptyString,
    points: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: mostPoints })),
    axes: Schema.Array(Schema.Struct({ path: Schema.NonEmptyString, values: Schema.Array(Schema.Unknown) })),
    search: Schema.optionalKey(
      Schema.Struct({ vary: Schema.String, metric: Schema.String, targets: Schema.Array(Schema.Finite) })
    ),
    scenario: Values
  })
)

/** What is wrong with what a study says of itself; nothing where it is a `StudyHeader`. */
export const whyNotHeader = (value: unknown): ReadonlyArray<Problem> =>
  whyNotHeaderOf(
    isRecord(value) && value["search"] === null
      ? Object.fromEntries(Object.entries(value).filter(([key]) => key !== "search"))
      : value
  )

/** What is wrong with a row of a study; nothing where it is a `StudyRow` of that one. */
export const whyNotRow = (value: unknown, { points }: StudyHeader): ReadonlyArray<Problem> => {
  const wrong = whyNotResult(value)
  if (wrong.length > 0 || !isRecord(value)) return wrong
  const point = value["point"]
  const problem = (field: string, accepted: string): Problem => ({
    path: [field],
    atKey: false,
    value: value[field] === undefined ? undefined : show(value[field]),
    accepted
  })
  if (typeof point !== "number" || point >= points)
    return [problem("point", `a whole number, from 0 to ${points - 1}`)]
  return ["axes", "values", "task"].flatMap((field) =>
    value[field] === undefined ? [problem(field, "what sim study writes (it is missing)")] : []
  )
}
