// Op logs as an Arrow file: what each rank submitted, with its dependency edges. docs/formats.md describes the columns.
import * as Effect from "effect/Effect"
import type { OpLog, OpLogEntry } from "../core/machine/timeline.ts"
import { batchRows, column, type Format, type ListColumn, type TextColumn } from "./column-format.ts"
import { foldColumnFile } from "./column-reader.ts"
import { writeColumnFile } from "./column-writer.ts"
import { decodeLanes, lanes } from "./lane-column.ts"
import type { TraceError } from "./trace-error.ts"

/** The columns of an op log (docs/formats.md). */
export const opLogFormat: Format = {
  name: "oplog",
  version: 3,
  columns: [
    column("rank", "int32", "rank, from 0"),
    column("op", "int32", "position in the rank's program order, from 0"),
    column("label", "text", "what it does, for people"),
    column("kernel", "text", "name of the kernel or collective"),
    column("lane", "text", "FIFO queue: compute, inter, intra, h2d or d2h"),
    column("step", "int32", "training step or iteration, from 0"),
    column("group", "text", "communicator; null for work of one rank", true),
    column("size_bytes", "float64", "bytes one rank puts in, B"),
    column("after", "int32-list", "ops of the same rank on other lanes that must end first"),
    column(
      "rows",
      "text",
      "rows of an uneven collective: each member's, or its matrix; null for any other op",
      true
    ),
    column("scalars", "text", "values given at this launch, as in 0.001,17; null where there are none", true)
  ]
}

/** Grows a dictionary as words come, one per column of a file. */
class Dictionary {
  readonly words: Array<string> = []
  readonly #codes = new Map<string, number>()
  code(word: string): number {
    let code = this.#codes.get(word)
    if (code === undefined) {
      code = this.words.length
      this.#codes.set(word, code)
      this.words.push(word)
    }
    return code
  }
}

/** Writes the op logs of some ranks to one file. */
export const writeOpLogs = (path: string, logs: ReadonlyArray<OpLog>): Effect.Effect<void, TraceError> =>
  writeColumnFile(path, opLogFormat, {}, (write) =>
    Effect.gen(function* () {
      const labels = new Dictionary()
      const kernels = new Dictionary()
      const groups = new Dictionary()
      const rowCounts = new Dictionary()
      const launches = new Dictionary()
      // All words before the first row: not every reader takes a dictionary that grows.
      for (const { entries } of logs) {
        for (const { label, kernel, group, rows, scalars } of entries) {
          labels.code(label)
          kernels.code(kernel)
          if (group !== undefined) groups.code(group)
          if (rows !== undefined) rowCounts.code(rows)
          if (scalars !== undefined) launches.code(scalars.join(","))
        }
      }
      for (const { rank, entries } of logs) {
        for (let from = 0; from < entries.length; from += batchRows) {
          const part = entries.slice(from, from + batchRows)
          const offsets = new Int32Array(part.length + 1)
          const after: Array<number> = []
          for (const [row, entry] of part.entries()) {
            for (const op of entry.after) after.push(op)
            offsets[row + 1] = after.length
          }
          const codes = (code: (entry: OpLogEntry) => number) => Int32Array.from(part, code)
          yield* write({
            rows: part.length,
            columns: [
              new Int32Array(part.length).fill(rank),
              Int32Array.from(part, (entry) => entry.op),
              { codes: codes((entry) => labels.code(entry.label)), dictionary: labels.words },
              { codes: codes((entry) => kernels.code(entry.kernel)), dictionary: kernels.words },
              { codes: codes((entry) => entry.lane), dictionary: lanes },
              Int32Array.from(part, (entry) => entry.step),
              {
                codes: codes((entry) => (entry.group === undefined ? -1 : groups.code(entry.group))),
                dictionary: groups.words
              },
              Float64Array.from(part, (entry) => entry.sizeBytes),
              { offsets, values: Int32Array.from(after) },
              {
                codes: codes((entry) => (entry.rows === undefined ? -1 : rowCounts.code(entry.rows))),
                dictionary: rowCounts.words
              },
              {
                codes: codes(({ scalars }) =>
                  scalars === undefined ? -1 : launches.code(scalars.join(","))
                ),
                dictionary: launches.words
              }
            ]
          })
        }
      }
    })
  )

/** Reads op logs, one per rank, ranks in the order they first appear. */
export const readOpLogs = (path: string): Effect.Effect<ReadonlyArray<OpLog>, TraceError> =>
  Effect.map(
    foldColumnFile(
      path,
      opLogFormat,
      () => ({ ranks: new Map<number, Array<OpLogEntry>>(), rows: 0 }),
      (state, batch) => {
        const ints = (index: number) => batch.columns[index] as Int32Array
        const word = (index: number, row: number): string | undefined => {
          const { codes, dictionary } = batch.columns[index] as TextColumn
          return dictionary[codes[row]!]
        }
        const lane = decodeLanes(path, batch.columns[4] as TextColumn, state.rows)
        const after = batch.columns[8] as ListColumn
        for (let row = 0; row < batch.rows; row++) {
          const rank = ints(0)[row]!
          let entries = state.ranks.get(rank)
          if (entries === undefined) state.ranks.set(rank, (entries = []))
          entries.push({
            op: ints(1)[row]!,
            label: word(2, row)!,
            kernel: word(3, row)!,
            lane: lane[row]!,
            step: ints(5)[row]!,
            group: word(6, row),
            sizeBytes: (batch.columns[7] as Float64Array)[row]!,
            after: Array.from(after.values.subarray(after.offsets[row]!, after.offsets[row + 1]!)),
            rows: word(9, row),
            scalars: word(10, row)?.split(",").map(Number)
          })
        }
        state.rows += batch.rows
        return state
      }
    ),
    ({ ranks }) => [...ranks].map(([rank, entries]) => ({ rank, entries }))
  )
