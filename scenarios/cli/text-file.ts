// A text file, whole or not at all.
import type * as Effect from "effect/Effect"
import { writeFileAtomically } from "../../traces/atomic-file.ts"
import { attempt, type TraceError } from "../../traces/trace-error.ts"

export const writeTextFile = (path: string, pieces: Iterable<string>): Effect.Effect<void, TraceError> =>
  writeFileAtomically(path, (sink) =>
    attempt(path, "a path in a writable folder with free space", () => {
      for (const piece of pieces) sink.write(piece)
    })
  )
