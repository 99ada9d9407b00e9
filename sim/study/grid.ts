// What a study searches: a metric that its task has, along values of one field, listed or in equal ratios. Runs nothing.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { InputError } from "../../core/input-error.ts"
import { parseBandwidth } from "../../core/units.ts"
import { show, type FieldPath } from "../../scenarios/file/check.ts"
import { inputErrors, type InputErrors } from "../../scenarios/file/input-errors.ts"
import { getField, resolveField } from "../../scenarios/file/override.ts"
import { isRecord, oneOf } from "../../scenarios/file/shape.ts"
import { didYouMean } from "../../scenarios/file/similar.ts"
import { familyOf } from "../../scenarios/families.ts"
import {
  shapeFor,
  taskOf,
  unresolved,
  withoutAxes,
  type Origin,
  type RawScenario
} from "../../scenarios/scenario-file.ts"
import type { GridPoint } from "./definition.ts"

/** `find` of a study section. */
export interface FindSection {
  readonly vary: string
  readonly over: unknown
  readonly metric: string
  readonly targets: ReadonlyArray<number>
}

/** The field that is varied, and its values as written. */
export interface Grid {
  readonly path: FieldPath
  readonly values: ReadonlyArray<unknown>
}

/** What is accepted in place of a field that no study can give one value and then another; undefined of all others. */
export const whyNotVaried = ([section]: FieldPath): string | undefined => {
  if (section === "task")
    return "a field of one task's scenarios: results of different tasks have nothing to compare"
  return section === "study" ? "a field of the scenarios that the study is over" : undefined
}

export const searchGrid = (
  origin: Origin,
  raw: RawScenario,
  find: FindSection
): Effect.Effect<Grid, InputErrors> =>
  Effect.suspend(() => {
    const found = resolveField(shapeFor(raw), withoutAxes(raw), find.vary)
    const where = origin(["study", "find", "vary"], false)
    if (!("path" in found)) return Effect.fail(inputErrors(unresolved(where, find.vary, found)))
    const accepted = whyNotVaried(found.path)
    if (accepted !== undefined)
      return Effect.fail(
        inputErrors(new InputError({ file: where, field: "study.find.vary", value: find.vary, accepted }))
      )
    const listed: ReadonlyArray<unknown> | undefined = Array.isArray(find.over) ? find.over : undefined
    if (listed !== undefined) return Effect.succeed<Grid>({ path: found.path, values: listed })
    const over = isRecord(find.over) ? find.over : {}
    const [from, to] = [over["from"], over["to"]].map((bound) => {
      const parsed =
        typeof bound === "string" || typeof bound === "number" ? parseBandwidth(bound) : undefined
      return parsed !== undefined && Result.isSuccess(parsed) ? parsed.success : Number.NaN
    })
    const points = Number(over["points"])
    if (from === undefined || to === undefined || !(from > 0 && to > from && to < Number.POSITIVE_INFINITY)) {
      return Effect.fail(
        inputErrors(
          new InputError({
            file: origin(["study", "find", "over"], false),
            field: "study.find.over",
            value: show(find.over),
            accepted: "from and to with 0 < from < to, both limited"
          })
        )
      )
    }
    return Effect.succeed<Grid>({ path: found.path, values: logarithmicGrid(from, to, points) })
  })

/**
 * Bandwidths from one to the other in equal ratios, as text. Twelve digits: the last of the sixteen depends on how an
 * engine computes powers, and must not decide a result.
 */
const logarithmicGrid = (from: number, to: number, points: number): ReadonlyArray<string> =>
  Array.from({ length: points }, (_, i) => {
    const bytesPerSecond = from * (to / from) ** (i / (points - 1))
    return `${Number(((bytesPerSecond * 8) / 1e9).toPrecision(12))}Gbit/s`
  })

/** A search is for a metric that the task has. */
export const checkMetric = (
  origin: Origin,
  raw: RawScenario,
  metric: string
): Effect.Effect<void, InputErrors> => {
  const names = familyOf({ task: taskOf(raw) }).metrics.map(({ name }) => name)
  return names.includes(metric)
    ? Effect.void
    : Effect.fail(
        inputErrors(
          new InputError({
            file: origin(["study", "find", "metric"], false),
            field: "study.find.metric",
            value: show(metric),
            accepted: `${oneOf(names)}${didYouMean(metric, names)}`
          })
        )
      )
}

/** A search bisects: its values must be quantities, each more than the one before. */
export const descending = (
  origin: Origin,
  grid: Grid,
  scenarios: ReadonlyArray<GridPoint>
): InputError | undefined => {
  let before = -Infinity
  for (const { value, scenario } of scenarios) {
    const decoded = getField(scenario, grid.path)
    const quantity = typeof decoded === "number" ? decoded : Number.NaN
    if (quantity > before) before = quantity
    else {
      return new InputError({
        file: origin(["study", "find", "over"], false),
        field: "study.find.over",
        value: show(value),
        accepted: "quantities in ascending order, each once"
      })
    }
  }
  return undefined
}
