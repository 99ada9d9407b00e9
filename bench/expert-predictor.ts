// Trains the small predictor of expert needs that ships (traces/expert-predictor.json), or one on your own routing files, and
// says how good it is on routing it has not seen:
//   npx node bench/expert-predictor.ts -o traces/expert-predictor.json
//   npx node bench/expert-predictor.ts -o mine.json day1.arrow day2.arrow
// Without files it trains on routing generated from published statistics; the last file (or seed) is kept for the test.
// Deterministic: the same input gives the same bytes.
import * as fs from "node:fs"
import * as Effect from "effect/Effect"
import type { Demand } from "../core/algorithms/expert-offload/demand.ts"
import type { Predictor } from "../core/algorithms/expert-offload/predictor/predictor.ts"
import { PreviousLayer, PreviousToken } from "../core/algorithms/expert-offload/predictor/simple.ts"
import { measureAccuracy, trainPredictor } from "../core/algorithms/expert-offload/predictor/train.ts"
import { Trained } from "../core/algorithms/expert-offload/predictor/trained.ts"
import { demandOf, generateRouting } from "../core/algorithms/expert-offload/routing.ts"
import { routingPresets, type RoutingPreset } from "../core/algorithms/expert-offload/routing-generator.ts"
import { Random } from "../core/random.ts"
import { readRoutedSteps } from "../traces/routing-trace.ts"
import { optionsOf } from "./numbers.ts"

const { values, positionals } = optionsOf({
  options: { out: { type: "string", short: "o" } },
  allowPositionals: true
})
if (values.out === undefined) {
  console.error("usage: npx node bench/expert-predictor.ts -o weights.json [routing.arrow ...]")
  process.exit(2)
}

const kinds = [
  { preset: "llama4", experts: 128, topK: 1, batch: 1 },
  { preset: "llama4", experts: 128, topK: 1, batch: 16 },
  { preset: "deepseek-v2-lite", experts: 64, topK: 6, batch: 1 },
  { preset: "mixtral", experts: 8, topK: 2, batch: 1 },
  { preset: "switch", experts: 32, topK: 1, batch: 8 }
] as const satisfies ReadonlyArray<{ readonly preset: RoutingPreset } & Record<string, unknown>>

const generated = (seed: number): ReadonlyArray<readonly [name: string, Demand]> =>
  kinds.map(({ preset, experts, topK, batch }) => {
    const workload = { batch, promptTokens: 1, prefill: false, decodeTokens: 200 }
    const routed = generateRouting(
      { layers: 6, experts },
      topK,
      workload,
      routingPresets[preset],
      new Random(seed)
    )
    return [`${preset}, top ${topK} of ${experts}, batch ${batch}`, demandOf(routed)]
  })

const traced = (): Promise<ReadonlyArray<readonly [name: string, Demand]>> =>
  Effect.runPromise(
    Effect.forEach(positionals, (path) =>
      Effect.map(readRoutedSteps(path), (routed) => [path, demandOf(routed)] as const)
    )
  )

const files = positionals.length === 0 ? undefined : await traced()
const training =
  files === undefined ? [...generated(1), ...generated(2)] : files.length === 1 ? files : files.slice(0, -1)
const unseen = files === undefined ? generated(3) : files.slice(-1)
const source =
  files === undefined
    ? "routing generated from the presets llama4, deepseek-v2-lite, mixtral and switch, seeds 1 and 2"
    : positionals.slice(0, Math.max(1, positionals.length - 1)).join(", ")
const weights = trainPredictor(
  training.map(([, demand]) => demand),
  source
)
fs.writeFileSync(values.out, `${JSON.stringify(weights, undefined, 2)}\n`)

const percent = (share: number) => `${(100 * share).toFixed(1)} %`.padStart(8)
console.log(`${"".padEnd(44)} recall  precision  false positives`)
for (const [name, demand] of unseen) {
  const predictors: ReadonlyArray<readonly [string, Predictor]> = [
    ["trained", new Trained(demand.shape, weights, 1)],
    ["previous token", new PreviousToken(demand.shape)],
    ["previous layer", new PreviousLayer(demand.shape)]
  ]
  for (const [kind, predictor] of predictors) {
    const { recall, precision, falsePositiveRate } = measureAccuracy(demand, predictor, 50)
    console.log(
      `${`${name}: ${kind}`.padEnd(52)}${percent(recall)}${percent(precision)}${percent(falsePositiveRate)}`
    )
  }
}
console.log(`wrote ${values.out}`)
