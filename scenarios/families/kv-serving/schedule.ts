// What is decided ahead of serving: what each layer keeps of a prompt, what that takes of memory, and how many requests of a
// kind decode together.
import * as Effect from "effect/Effect"
import { CachePlans, largestBatch } from "../../../core/algorithms/kv-serving/admission.ts"
import { decodeBytes } from "../../../core/algorithms/kv-serving/decode.ts"
import type { LayerChoice } from "../../../core/algorithms/kv-serving/choice.ts"
import { cacheBytes, weightBytes } from "../../../core/algorithms/kv-serving/model.ts"
import type { KvServingScenario } from "./scenario.ts"
import type { InputError } from "../../../core/input-error.ts"
import { formatBytes } from "../../../core/units.ts"
import type { Host, Told } from "../../family.ts"
import { alignColumns } from "../../table.ts"
import { resolveServing } from "./resolve.ts"

interface LayerJson {
  readonly layer: number
  /** "all", "choose", or the layer whose choice this one uses. */
  readonly choice: "all" | "choose" | number
  /** Kernels that choose, in order. */
  readonly kernels: ReadonlyArray<string>
  /** Rows that stay at most; exactly where `exact`. */
  readonly rows: number
  readonly exact: boolean
}

/** What the planner decides for the longest request of the scenario. */
export const schedule = (
  scenario: KvServingScenario,
  file: string,
  { loader }: Host
): Effect.Effect<Told, InputError> =>
  Effect.map(resolveServing(scenario, file, loader), ({ plan, warnings }) => {
    const { model, settings, requests, maxBatch } = plan
    const longest = requests.reduce((most, request) =>
      request.promptTokens + request.outputTokens > most.promptTokens + most.outputTokens ? request : most
    )
    const cache = new CachePlans(settings, model).of(longest)
    const layers = cache.choices.map((choice, layer): LayerJson => {
      const own = choice.kind === "as" ? cache.choices[choice.layer]! : choice
      return {
        layer,
        choice: choice.kind === "as" ? choice.layer : choice.kind,
        kernels: choice.kind === "choose" ? choice.calls.map(({ kernel }) => kernel) : [],
        rows: cache.promptRows[layer]!,
        exact: own.kind !== "choose" || own.exact
      }
    })
    const capacity = scenario.memory?.device
    const json = {
      algorithm: settings.name,
      promptTokens: longest.promptTokens,
      outputTokens: longest.outputTokens,
      layers,
      promptCacheBytes: cache.promptBytes,
      cacheBytes: cache.totalBytes,
      fullCacheBytes: cacheBytes(
        model,
        cache.choices.map(() => longest.promptTokens)
      ),
      weightBytes: weightBytes(model),
      decodeBytes: decodeBytes(model, maxBatch),
      prefillBytes: cache.prefillBytes,
      largestBatch:
        capacity === undefined
          ? maxBatch
          : largestBatch(settings, model, longest, {
              capacityBytes: capacity,
              maxBatch,
              to: scenario.transfer.to
            })
    }
    const share = cache.promptBytes / json.fullCacheBytes
    return {
      json,
      warnings,
      lines: [
        `${scenario.name}: ${settings.name}, prompt of ${longest.promptTokens}, ${longest.outputTokens} tokens to generate`,
        "",
        ...layerLines(cache.choices, layers),
        "",
        ...alignColumns(
          [
            [
              "cache of the prompt",
              formatBytes(cache.promptBytes),
              `${(share * 100).toFixed(1)} % of the full ${formatBytes(json.fullCacheBytes)}`
            ],
            ["with generated tokens", formatBytes(cache.totalBytes), ""],
            ["weights", formatBytes(json.weightBytes), ""],
            ["activations of decoding", formatBytes(json.decodeBytes), ""],
            ["activations of prefill", formatBytes(json.prefillBytes), ""]
          ],
          (column) => column === 1
        ),
        `decodes together: ${json.largestBatch}${capacity === undefined ? " (maxBatch; memory.device is not limited)" : ` of at most ${maxBatch} in ${formatBytes(capacity)}`}`
      ]
    }
  })

/** Layers that decide alike in a row share a line. */
const layerLines = (
  choices: ReadonlyArray<LayerChoice>,
  layers: ReadonlyArray<LayerJson>
): ReadonlyArray<string> => {
  const told = layers.map(({ choice, kernels, rows, exact }) => [
    `${exact ? "" : "at most "}${rows} rows`,
    choice === "all" ? "every token" : choice === "choose" ? kernels.join(", ") : `as layer ${choice}`
  ])
  const lines: Array<ReadonlyArray<string>> = []
  for (let from = 0; from < choices.length;) {
    let to = from
    while (to + 1 < choices.length && told[to + 1]!.join() === told[from]!.join()) to++
    lines.push([from === to ? `layer ${from}` : `layers ${from} to ${to}`, ...told[from]!])
    from = to + 1
  }
  return alignColumns(lines)
}
