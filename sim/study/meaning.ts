// Whether two points of a study mean the same in other words: 1Gbit/s and 1000Mbit/s.
import type { Scenario } from "../../scenarios/families.ts"
import { show, type FieldPath } from "../../scenarios/file/check.ts"
import { getField } from "../../scenarios/file/override.ts"
import type { StudyPoint } from "./definition.ts"

/** Equal for points whose values mean the same. */
export const meaningOf = (
  scenario: Scenario,
  axes: ReadonlyArray<{ readonly path: string; readonly at: FieldPath }>,
  written: Readonly<Record<string, unknown>>
): string =>
  JSON.stringify(
    axes.map(({ path, at }) => (written[path] === null ? null : (getField(scenario, at) ?? null))),
    (_, value: unknown) => (typeof value === "number" && !Number.isInteger(value) ? roughly(value) : value)
  )

/** Without what arithmetic on units leaves in the last digits; JSON has no number for what is unlimited. */
const roughly = (value: number): number | string =>
  Number.isFinite(value) ? Number(value.toPrecision(12)) : String(value)

export const inOtherWords = (one: StudyPoint, other: StudyPoint): ReadonlyArray<string> =>
  Object.entries(other.axes).flatMap(([path, value]) =>
    JSON.stringify(value) === JSON.stringify(one.axes[path])
      ? []
      : [`study.axes, ${path}: ${show(value)} is ${show(one.axes[path])} in other words, and one row with it`]
  )
