// Routings of MoE tokens as an Arrow file, written and read batch by batch. docs/formats.md describes the columns.
import * as Effect from "effect/Effect"
import { batchRows, column, type Format } from "./column-format.ts"
import { foldColumnFile } from "./column-reader.ts"
import { writeColumnFile } from "./column-writer.ts"
import type { TraceError } from "./trace-error.ts"

/** Which experts each token chose, one row per token and choice. */
export interface Routing {
  readonly step: Int32Array
  /** MoE layer, from 0. */
  readonly layer: Int32Array
  /** Position in the batch (training) or in the sequence (generation), from 0. */
  readonly token: Int32Array
  /** 0 for the expert with the largest weight, 1 for the next, ... */
  readonly choice: Int32Array
  readonly expert: Int32Array
  /** What the gate multiplies the expert's output by. */
  readonly weight: Float64Array
}

/** The columns of a routing (docs/formats.md). */
export const routingFormat: Format = {
  name: "routing",
  version: 1,
  columns: [
    column("step", "int32", "training step or generated token, from 0"),
    column("layer", "int32", "MoE layer, from 0"),
    column("token", "int32", "token of the step, from 0"),
    column("choice", "int32", "0 for the expert with the largest weight, 1 for the next, ..."),
    column("expert", "int32", "expert, from 0"),
    column("weight", "float64", "weight of the expert's output", false, -Infinity)
  ]
}

const routingColumns = ["step", "layer", "token", "choice", "expert", "weight"] as const

/** Writes a routing that arrives in pieces; memory is one piece. Nothing appears at `path` unless `body` succeeds. */
export const writeRoutingParts = <A, E, R>(
  path: string,
  body: (write: (part: Routing) => Effect.Effect<void, TraceError>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceError, R> =>
  writeColumnFile(path, routingFormat, {}, (writeBatch) =>
    body((part) =>
      Effect.gen(function* () {
        const rows = part.step.length
        for (let from = 0; from < rows; from += batchRows) {
          const to = Math.min(rows, from + batchRows)
          yield* writeBatch({
            rows: to - from,
            columns: routingColumns.map((name) => part[name].subarray(from, to))
          })
        }
      })
    )
  )

/** Writes a whole routing. */
export const writeRouting = (path: string, routing: Routing): Effect.Effect<void, TraceError> =>
  writeRoutingParts(path, (write) => write(routing))

/** Reads a routing piece by piece and folds over the pieces: one record batch in memory at a time. */
export const foldRouting = <A>(
  path: string,
  initial: A,
  step: (state: A, part: Routing) => A
): Effect.Effect<A, TraceError> =>
  foldColumnFile(
    path,
    routingFormat,
    () => initial,
    (state, { columns }) => {
      const ints = (index: number) => columns[index] as Int32Array
      return step(state, {
        step: ints(0),
        layer: ints(1),
        token: ints(2),
        choice: ints(3),
        expert: ints(4),
        weight: columns[5] as Float64Array
      })
    }
  )
