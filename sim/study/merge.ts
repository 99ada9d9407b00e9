// Puts the shards of a study together, when they are of one study and all there.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import type { StudyResult, StudyRow } from "./result.ts"

interface NamedStudy {
  readonly file: string
  readonly study: StudyResult
}

/** The whole study; fails unless every point is in some file, and equal wherever it is in several. */
export const mergeShards = (parts: ReadonlyArray<NamedStudy>): Effect.Effect<StudyResult, InputError> =>
  Effect.suspend(() => {
    const [first] = parts
    if (first === undefined) {
      return Effect.fail(
        new InputError({ file: "sim merge", field: "", accepted: "at least one shard file" })
      )
    }
    const { header } = first.study
    const rows = new Map<number, { readonly file: string; readonly rows: ReadonlyArray<StudyRow> }>()
    for (const { file, study } of parts) {
      if (study.header.identity !== header.identity) {
        return Effect.fail(
          new InputError({
            file,
            field: "",
            value: `a shard of another study (${study.header.name}, ${study.header.identity})`,
            accepted: `shards of the study of ${first.file} (${header.name}, ${header.identity})`
          })
        )
      }
      for (const [point, own] of Map.groupBy(study.rows, (row) => row.point)) {
        const known = rows.get(point)
        if (known !== undefined && JSON.stringify(known.rows) !== JSON.stringify(own)) {
          return Effect.fail(
            new InputError({
              file,
              field: `point ${point}`,
              value: "another result",
              accepted: `the one in ${known.file}: shards of one study computed by one version agree`
            })
          )
        }
        rows.set(point, { file, rows: own })
      }
    }
    const missing = Array.from({ length: header.points }, (_, i) => i).filter((point) => !rows.has(point))
    if (missing.length > 0) {
      return Effect.fail(
        new InputError({
          file: parts.map(({ file }) => file).join(", "),
          field: "",
          value: `${header.points - missing.length} of ${header.points} points`,
          accepted: `shards with all points; missing are ${missing.slice(0, 8).join(", ")}${missing.length > 8 ? ", ..." : ""}`
        })
      )
    }
    const points = [...rows.keys()].toSorted((a, b) => a - b)
    return Effect.succeed({ header, rows: points.flatMap((point) => rows.get(point)!.rows) })
  })
