// Routings that other tools recorded, as a routing file.
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import type { RoutedSteps } from "../../core/algorithms/expert-offload/routing.ts"
import { unpacked } from "../packed.ts"
import type { Routing } from "../routing-file.ts"
import { attempt, attemptAsync, type TraceError } from "../trace-error.ts"
import { parsers } from "./formats.ts"
import type { RoutingSource } from "./sources.ts"
import { inTurn, reportOf, type RoutingOptions, type RoutingReport } from "./tokens.ts"

/** Reads what `source` recorded. `file` is for messages. */
export const importRouting = (
  source: RoutingSource,
  bytes: Uint8Array,
  options: RoutingOptions & { readonly file?: string } = {}
): Effect.Effect<RoutingReport, TraceError> => {
  const file = options.file ?? "routing"
  return attempt(file, `a routing of ${source}`, () =>
    reportOf(file, parsers[source](file, bytes, options), options)
  )
}

/** As `importRouting`, from a file; of several, requests one after the other. */
export const importRoutingFiles = (
  source: RoutingSource,
  paths: readonly [string, ...Array<string>],
  options: RoutingOptions = {}
): Effect.Effect<RoutingReport, TraceError> =>
  Effect.flatMap(
    Effect.forEach(paths, (path) =>
      Effect.flatMap(
        attemptAsync(path, "the path of a routing", async () => unpacked(path, await readFile(path))),
        (bytes) =>
          attempt(path, `a routing of ${source}`, () => ({
            file: path,
            choices: parsers[source](path, bytes, options)
          }))
      )
    ),
    (requests) =>
      attempt(paths[0], `routings of ${source}`, () => {
        const choices = inTurn(requests, options)
        // Steps of several are made from their prompts, where the source does not say them.
        const { promptTokens: _, ...others } = options
        const made = requests.length > 1 && requests.some((request) => request.choices.steps === undefined)
        return reportOf(paths[0], choices, made ? others : options)
      })
  )

/** As `importRoutingFiles`, of one. */
export const importRoutingFile = (
  source: RoutingSource,
  path: string,
  options: RoutingOptions = {}
): Effect.Effect<RoutingReport, TraceError> => importRoutingFiles(source, [path], options)

/** As the rows of a routing file. Sources that give no weights have 1 / topK for each. */
export const routingRows = ({ shape, topK, choices }: RoutedSteps): Routing => {
  const rows = choices.reduce(
    (sum, layers) => sum + layers.reduce((own, chosen) => own + chosen.length, 0),
    0
  )
  const columns = {
    step: new Int32Array(rows),
    layer: new Int32Array(rows),
    token: new Int32Array(rows),
    choice: new Int32Array(rows),
    expert: new Int32Array(rows),
    weight: new Float64Array(rows).fill(1 / topK)
  }
  let row = 0
  for (const [step, layers] of choices.entries()) {
    for (let layer = 0; layer < shape.layers; layer++) {
      for (const [at, expert] of layers[layer]!.entries()) {
        columns.step[row] = step
        columns.layer[row] = layer
        columns.token[row] = Math.floor(at / topK)
        columns.choice[row] = at % topK
        columns.expert[row] = expert
        row++
      }
    }
  }
  return columns
}
