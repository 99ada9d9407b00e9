// What data-parallel algorithms learn: a small GPT-2 on text, four ranks, the same steps and tokens for all, several seeds; from
// random parameters, and from those that S-SGD has come to.
//   node bench/learning.ts                                  trains what bench/learning/results.json does not have yet
//   node bench/learning.ts --start continued --seeds 1,2    so much of it
//   node bench/learning.ts --draw                           nothing; all three print the tables and draw the pictures
// Every finished run is recorded at once: an interrupted bench goes on where it stopped. Links are those of the scenario for
// the planners; they are not emulated, so that a run takes as long as its kernels.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import * as os from "node:os"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { observed } from "../core/algorithms/data-parallel/observe.ts"
import { prepareTraining } from "../scenarios/families/data-parallel/kernels.ts"
import { training } from "../exec/train/train.ts"
import { Loader } from "../scenarios/load.ts"
import { loadScenario } from "../scenarios/scenario-file.ts"
import type { TrainingModel } from "../core/algorithms/data-parallel/training-model.ts"
import type { TensorData } from "../core/machine/tensor.ts"
import { learningChart } from "./learning/chart.ts"
import { tabulate } from "./learning/table.ts"
import {
  chartOf,
  finalLoss,
  mean,
  starts,
  type RecordedRun,
  type Results,
  type Start
} from "./learning/results.ts"
import { namesOf, optionsOf } from "./numbers.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const scenarioFile = "scenarios/learning.yaml"
const resultsFile = `${root}bench/learning/results.json`

const seeds = [1, 2, 3]
const evaluations = 12
/** Of one evaluation: 16 batches of 4 windows of 64 tokens. */
const heldOutBatches = 16

/** Fields of the scenario, as `--set` takes them. */
type Overrides = ReadonlyArray<string>

interface Variant {
  readonly label: string
  readonly algorithm: string
  /** Peak rate of the inner AdamW from scratch: the best of a few, for each algorithm (docs/learning.md). */
  readonly learningRate: number
}

/** In the order of the tables. Outer optimizers as published. */
const variants: ReadonlyArray<Variant> = [
  { label: "S-SGD", algorithm: "{ name: s-sgd }", learningRate: 0.003 },
  { label: "Local SGD", algorithm: "{ name: local-sgd, period: 10 }", learningRate: 0.005 },
  { label: "DreamDDP", algorithm: "{ name: dreamddp, period: 10 }", learningRate: 0.006 },
  { label: "DiLoCo", algorithm: "{ name: diloco, period: 40 }", learningRate: 0.003 },
  {
    label: "Streaming DiLoCo",
    algorithm: "{ name: streaming-diloco, period: 20 }",
    learningRate: 0.005
  }
]

/** What a run begins with: random parameters, or those that S-SGD has come to; then one rate serves all algorithms. */
const continuedRate = 0.002
const startOverrides = (seed: number): Overrides => [
  "algorithm=s-sgd",
  `seed=${seed}`,
  "steps=400",
  "optimizer.decayUntilStep=1200"
]
const overridesOf = (start: Start, { algorithm, learningRate }: Variant, seed: number): Overrides =>
  start === "scratch"
    ? [`algorithm=${algorithm}`, `seed=${seed}`, `optimizer.learningRate=${learningRate}`]
    : [
        `algorithm=${algorithm}`,
        // Other batches than the start has seen.
        `seed=${seed + 100}`,
        `optimizer.learningRate=${continuedRate}`,
        "optimizer.warmupSteps=40",
        "optimizer.decayUntilStep=800",
        "steps=800"
      ]

/** By the tensors' names. */
type Parameters = ReadonlyMap<string, TensorData>

/** Trains the scenario with those changes, from given parameters or those of its seed. */
const train = (overrides: Overrides, from?: Parameters) =>
  Effect.gen(function* () {
    const scenario = yield* loadScenario(`${root}${scenarioFile}`, overrides)
    if (scenario.task !== "data-parallel") throw new RangeError(`${scenarioFile}: task ${scenario.task}`)
    const prepared = yield* prepareTraining(scenario, `${root}${scenarioFile}`, new Loader())
    const steps = scenario.steps!
    const parameters = new Map<string, TensorData>()
    let model: TrainingModel | undefined
    const { run, learnt } = training(
      {
        world: prepared.world,
        batchTokens: prepared.batchTokens,
        program: ({ loss, heldOutLoss }) =>
          observed(
            Effect.tap(prepared.build, (built) => Effect.sync(() => (model = built))),
            (build) => prepared.planned.program(build, steps),
            {
              everySteps: 1,
              onLoss: loss,
              evaluation: {
                everySteps: Math.floor(steps / evaluations),
                lastStep: steps,
                batches: heldOutBatches,
                onLoss: heldOutLoss
              }
            }
          )
      },
      {
        initial: (_, { name }) => from?.get(name),
        atEnd: ({ valuesOf }) => {
          for (const parameter of model!.layers.flatMap((layer) => layer.parameters))
            parameters.set(parameter.name, valuesOf(0, parameter))
        }
      }
    )
    yield* run
    return { scenario, steps, parameters, ...learnt() }
  })

const recordOf = (
  start: Start,
  { label }: Variant,
  seed: number,
  run: Effect.Success<ReturnType<typeof train>>
): RecordedRun => ({
  start,
  label,
  algorithm: run.scenario.algorithm as RecordedRun["algorithm"],
  learningRate: run.scenario.training!.optimizer.learningRate,
  seed,
  steps: run.steps,
  tokens: run.tokens,
  seconds: Math.round(run.seconds * 10) / 10,
  trainingLoss: mean(run.losses.slice(-50).map(({ loss }) => loss)),
  heldOutLosses: run.heldOutLosses
})

const { values: options } = optionsOf({
  options: {
    start: { type: "string", default: starts.join(",") },
    seeds: { type: "string", default: seeds.join(",") },
    draw: { type: "boolean", default: false }
  }
})
const wantedStarts = namesOf("--start", options.start, starts)
const wantedSeeds = namesOf("--seeds", options.seeds, seeds.map(String)).map(Number)
const recorded: Results = existsSync(resultsFile)
  ? (JSON.parse(readFileSync(resultsFile, "utf8")) as Results)
  : { scenario: scenarioFile, machine: "", runs: [] }
const machine = `${os.cpus()[0]?.model ?? "?"}, ${os.availableParallelism()} cores, Node ${process.versions.node}`
let runs = recorded.runs
const recordedRun = (start: Start, { label }: Variant, seed: number) =>
  runs.find((run) => run.start === start && run.label === label && run.seed === seed)

for (const start of options.draw ? [] : wantedStarts) {
  for (const seed of wantedSeeds) {
    const missing = variants.filter((variant) => recordedRun(start, variant, seed) === undefined)
    if (missing.length === 0) continue
    const from =
      start === "continued" ? (await Effect.runPromise(train(startOverrides(seed)))).parameters : undefined
    for (const variant of missing) {
      const trained = await Effect.runPromise(train(overridesOf(start, variant, seed), from))
      const run = recordOf(start, variant, seed, trained)
      runs = [...runs, run]
      console.error(
        `${start}, ${variant.label}, seed ${seed}: held-out loss ${finalLoss(run).toFixed(3)} in ${run.seconds} s`
      )
      write(resultsFile, `${JSON.stringify({ scenario: scenarioFile, machine, runs }, undefined, 2)}\n`)
    }
  }
}

for (const start of starts) {
  const told = variants.flatMap((variant) => seeds.flatMap((seed) => recordedRun(start, variant, seed) ?? []))
  console.log(`${start}:\n\n${tabulate(told)}`)
  if (told.length === variants.length * seeds.length) write(`${root}${chartOf(start)}`, learningChart(told))
}

/** Whole or not at all. */
function write(file: string, text: string): void {
  writeFileSync(`${file}.tmp.json`, text)
  renameSync(`${file}.tmp.json`, file)
}
