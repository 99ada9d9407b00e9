// A timeline as an Arrow file, written and read batch by batch. docs/formats.md describes the columns. Knows nothing of
// machines or simulators.
import * as Effect from "effect/Effect"
import { joinTimelines, type Timeline } from "../core/machine/timeline.ts"
import { batchRows, column, type Batch, type Format, type TextColumn } from "./column-format.ts"
import { foldColumnFile } from "./column-reader.ts"
import { writeColumnFile } from "./column-writer.ts"
import { decodeLanes, lanes } from "./lane-column.ts"
import { attempt, TraceError } from "./trace-error.ts"

/** The columns of a timeline (docs/formats.md). */
export const timelineFormat: Format = {
  name: "timeline",
  version: 1,
  columns: [
    column("rank", "int32", "rank, from 0"),
    column("op", "int32", "position in the rank's program order, from 0"),
    column("lane", "text", "FIFO queue: compute, inter, intra, h2d or d2h"),
    column("step", "int32", "training step or iteration, from 0"),
    column("label", "text", "what it does, for people"),
    column("kernel", "text", "name of the kernel or collective"),
    column("start_seconds", "float64", "start after the run's beginning, s"),
    column("end_seconds", "float64", "end after the run's beginning, s; not before the start"),
    column("size_bytes", "float64", "bytes one rank puts in, B"),
    column("cause", "int32", "row of the op whose end let this one start; null where none did", true)
  ]
}

const checkEnds = (file: string, start: Float64Array, end: Float64Array, first: number): void => {
  for (let row = 0; row < start.length; row++) {
    if (end[row]! >= start[row]!) continue
    throw new TraceError({
      file,
      field: `column end_seconds, row ${first + row}`,
      value: String(end[row]),
      accepted: `at least start_seconds, ${start[row]}`
    })
  }
}

/** Rows `from` to `to` of a timeline as a batch. */
const timelineBatch = (timeline: Timeline, from: number, to: number): Batch => {
  const part = (values: Int32Array) => values.subarray(from, to)
  return {
    rows: to - from,
    columns: [
      part(timeline.rank),
      part(timeline.op),
      { codes: Int32Array.from(timeline.lane.subarray(from, to)), dictionary: lanes },
      part(timeline.step),
      { codes: part(timeline.label), dictionary: timeline.labels },
      { codes: part(timeline.kernel), dictionary: timeline.kernels },
      timeline.startSeconds.subarray(from, to),
      timeline.endSeconds.subarray(from, to),
      timeline.sizeBytes.subarray(from, to),
      part(timeline.cause)
    ]
  }
}

/**
 * Writes a timeline that arrives in pieces; memory is one piece. Over the pieces, `labels` and `kernels` may grow at
 * their end, never change, and `cause` counts rows of the whole file. (Give all words with the first piece where they
 * are known: polars does not read files whose dictionaries grow, pyarrow and DuckDB do.) Nothing appears at `path` unless `body` succeeds.
 */
export const writeTimelineParts = <A, E, R>(
  path: string,
  body: (write: (part: Timeline) => Effect.Effect<void, TraceError>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceError, R> =>
  writeColumnFile(path, timelineFormat, {}, (writeBatch) => {
    let written = 0
    return body((part) =>
      Effect.gen(function* () {
        yield* attempt(path, "a timeline", () => checkEnds(path, part.startSeconds, part.endSeconds, written))
        const rows = part.rank.length
        for (let from = 0; from < rows; from += batchRows) {
          yield* writeBatch(timelineBatch(part, from, Math.min(rows, from + batchRows)))
        }
        written += rows
      })
    )
  })

/** Writes a whole timeline. Errors: NaN, an end before its start, an unknown lane, the disk. */
export const writeTimeline = (path: string, timeline: Timeline): Effect.Effect<void, TraceError> =>
  writeTimelineParts(path, (write) => write(timeline))

const decodeTimelineBatch = (file: string, batch: Batch, first: number): Timeline => {
  const ints = (index: number) => batch.columns[index] as Int32Array
  const floats = (index: number) => batch.columns[index] as Float64Array
  const words = (index: number) => batch.columns[index] as TextColumn
  const startSeconds = floats(6)
  const endSeconds = floats(7)
  checkEnds(file, startSeconds, endSeconds, first)
  return {
    rank: ints(0),
    op: ints(1),
    lane: decodeLanes(file, words(2), first),
    step: ints(3),
    label: words(4).codes,
    labels: words(4).dictionary,
    kernel: words(5).codes,
    kernels: words(5).dictionary,
    startSeconds,
    endSeconds,
    sizeBytes: floats(8),
    cause: ints(9)
  }
}

/** Reads a timeline piece by piece and folds over the pieces: one record batch in memory at a time. */
export const foldTimeline = <A>(
  path: string,
  initial: A,
  step: (state: A, part: Timeline) => A
): Effect.Effect<A, TraceError> =>
  Effect.map(
    foldColumnFile(
      path,
      timelineFormat,
      () => ({ state: initial, rows: 0 }),
      ({ state, rows }, batch) => ({
        state: step(state, decodeTimelineBatch(path, batch, rows)),
        rows: rows + batch.rows
      })
    ),
    ({ state }) => state
  )

/** Reads a whole timeline into memory. */
export const readTimeline = (path: string): Effect.Effect<Timeline, TraceError> =>
  Effect.map(
    foldTimeline(path, [] as Array<Timeline>, (parts, part) => {
      parts.push(part)
      return parts
    }),
    (parts) => joinTimelines(parts, "whole")
  )
