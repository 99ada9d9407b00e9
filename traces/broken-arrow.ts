// What is wrong with an Arrow file of our own, by whichever reader goes on with it; of a study, whose rows this folder does not
// know, by its columns and digest alone.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { column } from "./column-format.ts"
import { foldColumnFile } from "./column-reader.ts"
import { readJournals } from "./journal-file.ts"
import { readOpLogs } from "./op-log-file.ts"
import { readTimeline } from "./timeline-file.ts"
import type { TraceError } from "./trace-error.ts"
import { readWeights } from "./weights-file.ts"

const readStudy = (file: string): Effect.Effect<unknown, TraceError> =>
  foldColumnFile(
    file,
    { name: "study", version: 1, columns: [column("row", "text", "a row as JSON")] },
    () => undefined,
    () => undefined
  )

const readers: Readonly<Record<string, (file: string) => Effect.Effect<unknown, TraceError>>> = {
  timeline: readTimeline,
  oplog: readOpLogs,
  journal: readJournals,
  weights: readWeights,
  study: readStudy
}

/** The sentence of its reader; undefined where it is whole, or of a format that has no reader here. */
export const brokenArrow = (file: string, format: string | undefined): Effect.Effect<string | undefined> => {
  const read = format === undefined || !Object.hasOwn(readers, format) ? undefined : readers[format]
  if (read === undefined) return Effect.succeed(undefined)
  return Effect.map(Effect.result(read(file)), (result) =>
    Result.isFailure(result) ? result.failure.message : undefined
  )
}
