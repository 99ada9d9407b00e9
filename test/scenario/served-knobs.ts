// Settings of offloaded experts and of compressed caches with which the same is loaded, or stays, as with any other.
import type { Knob } from "./shared-knobs.ts"

const allThere = ["model.layers=1", "cache.slotsPerLayer=8", "workload.promptTokens=64"] as const
const predicting = "algorithm={name: predict-next, predictor: {name: oracle}}"
const inTurns = ["workload.prefill=false", "workload.batches=2"] as const

export const offloadKnobs: ReadonlyArray<Knob> = [
  // A prefill of so many tokens needs every expert of the layer: all are there before anything is predicted.
  ...["recall", "falsePositiveRate"].map((field): Knob => [
    `algorithm.predictor.${field}`,
    "0.5",
    "1",
    predicting,
    ...allThere
  ]),
  [
    "algorithm.predictor.breadth",
    "0.5",
    "2",
    "algorithm={name: expertflow, predictor: {name: trained}}",
    ...allThere
  ],
  ["algorithm.predictor.name", "oracle", "previous-token", predicting, ...allThere],
  ["algorithm.window", "2", "4", "algorithm={name: predict-next}", ...allThere],
  ["algorithm.reach", "2", "3", "algorithm={name: predict-next}", ...allThere],
  ["cache.scope", "per-layer", "shared", "model.layers=1"],
  [
    "cache.writeBack",
    "none",
    "same-stream",
    "cache.slotsPerLayer=7",
    "workload={batch: 1, promptTokens: 1, decodeTokens: 3, warmupSteps: 1}"
  ],
  ["workload.tokenScheduler", "false", "true", ...inTurns, "workload.batch=1"],
  ["workload.tokenScheduler", "false", "true", ...inTurns, "model.topK=8"],
  ["seed", "1", "2", "model.topK=8"]
]

const short = "requests={count: 4, prompt: 40, output: 8}"
const whole = (name: string) => [`algorithm={name: ${name}, budget: 64}`, short] as const

export const servedKnobs: ReadonlyArray<Knob> = [
  ["algorithm.budget", "64", "128", ...whole("snapkv")],
  ["algorithm.rule", "paper", "kvpress", ...whole("chunkkv")],
  ["algorithm.chunk", "5", "30", ...whole("chunkkv")],
  ["algorithm.reuse", "1", "2", ...whole("chunkkv")],
  ["algorithm.reuse", "2", "3"],
  ["algorithm.beta", "2", "20", ...whole("pyramidkv")],
  ["algorithm.shot", "16", "128", ...whole("shotkv")],
  [
    "algorithm.decodeKeep",
    "0.2",
    "1",
    "algorithm={name: shotkv}",
    "requests={count: 4, prompt: 400, output: 2}"
  ],
  ["requests.perSecond", "5", "50", "requests={count: 1, prompt: 400, output: 8}"],
  ["requests.arrivals", "poisson", "even", "requests={count: 1, prompt: 400, output: 8, perSecond: 5}"],
  ["requests.speed", "1", "100", "requests={trace: test/fixtures/requests/azure.csv, limit: 1}"],
  ["seed", "1", "2", ...whole("chunkkv")]
]
