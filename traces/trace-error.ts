// The one error of the trace layer: what was wrong with which file, said so that a person can fix it.
// Knows nothing of formats; every reader and importer speaks through it.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { fileOf } from "./system-words.ts"

/** A file that cannot be read, written or understood. Never carries a stack trace to the user: `message` is the whole story. */
export class TraceError extends Schema.TaggedError<TraceError>()("TraceError", {
  /** Path or name of the input. */
  file: Schema.String,
  /** Where in it: "line 12, column ranks", "traceEvents[7].ts", "column end_seconds, row 3", "metadata step_seconds". */
  field: Schema.String,
  /** What was found there, as text. */
  value: Schema.String,
  /** What would have been accepted. */
  accepted: Schema.String
}) {
  override get message(): string {
    return `${this.file}: ${this.field} is ${this.value}; expected ${this.accepted}`
  }
}

const longestValue = 120

/** Any value as the short text that error messages show. */
export const showValue = (value: unknown): string => {
  let text: string
  if (value === undefined) text = "missing"
  else if (typeof value === "number" || typeof value === "bigint") text = String(value)
  else if (value instanceof Error) text = value.message
  else {
    try {
      text = JSON.stringify(value) ?? String(value)
    } catch {
      text = Object.prototype.toString.call(value)
    }
  }
  return text.length > longestValue ? `${text.slice(0, longestValue)}...` : text
}

/** What an operating system error or a library's exception becomes. A `TraceError` passes through. */
export const traceErrorFrom = (file: string, field: string, accepted: string, cause: unknown): TraceError => {
  if (cause instanceof TraceError) return cause
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  if (code === "ENOENT") {
    return new TraceError({
      file,
      field: "file",
      value: "missing (ENOENT)",
      accepted: "the path of an existing file"
    })
  }
  if (code === "EISDIR") return new TraceError({ file, field: "file", value: "a folder", accepted })
  return new TraceError({
    file,
    field,
    value: code === undefined ? showValue(cause) : fileOf(cause),
    accepted
  })
}

/** Runs parsing code that throws `TraceError` (or whatever a library throws on malformed bytes) as an Effect. */
export const attempt = <A>(file: string, accepted: string, run: () => A): Effect.Effect<A, TraceError> =>
  Effect.try({ try: run, catch: (cause) => traceErrorFrom(file, "content", accepted, cause) })

/** As `attempt`, for code that waits. The signal aborts when the fiber is interrupted. */
export const attemptAsync = <A>(
  file: string,
  accepted: string,
  run: (signal: AbortSignal) => Promise<A>
): Effect.Effect<A, TraceError> =>
  Effect.tryPromise({ try: run, catch: (cause) => traceErrorFrom(file, "content", accepted, cause) })

/** Whether the system refused for this reason: "ENOENT", "EEXIST", ... */
export const hasCode = (cause: unknown, code: string): boolean =>
  cause instanceof Error && "code" in cause && cause.code === code
