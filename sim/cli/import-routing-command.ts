// sim import routing: which experts another tool's tokens chose, as a routing file.
import * as Effect from "effect/Effect"
import { counted } from "../../core/units.ts"
import { tokensOf } from "../../core/algorithms/expert-offload/routing.ts"
import type { RoutingSource } from "../../traces/routing/sources.ts"
import { importRoutingFiles, routingRows } from "../../traces/routing/import.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"

export interface ImportRoutingOptions {
  readonly out: string
  readonly promptTokens?: number
  readonly topK?: number
  readonly keepWarmup?: boolean
  readonly json?: boolean
}

export const importRoutingCommand = (
  source: RoutingSource,
  files: readonly [string, ...Array<string>],
  { out, promptTokens, topK, keepWarmup, json: asJson }: ImportRoutingOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      yield* requireApart([["--out", out]], files)
      const { routing, layers, warmupTokens, warnings } = yield* importRoutingFiles(source, files, {
        ...(promptTokens === undefined ? {} : { promptTokens }),
        ...(topK === undefined ? {} : { topK }),
        ...(keepWarmup === undefined ? {} : { keepWarmup })
      })
      yield* writeRouting(out, routingRows(routing))
      const tokens = tokensOf(routing)
      const count = tokens.reduce((sum, each) => sum + each, 0)
      const summary = {
        out,
        steps: tokens.length,
        tokens: count,
        layers: routing.shape.layers,
        sourceLayers: layers,
        topK: routing.topK,
        experts: routing.shape.experts,
        warmupTokens,
        warnings
      }
      if (asJson === true) return said(json(summary))
      return said(
        [
          `${counted(count, "token")} in ${counted(tokens.length, "step")}, ${counted(layers.length, "layer")}, top ${routing.topK} of experts 0 to ${routing.shape.experts - 1}`,
          ...warnings.map((warning) => `warning: ${warning}`),
          `wrote ${out}`,
          ""
        ].join("\n")
      )
    })
  )
