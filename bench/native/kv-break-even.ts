// The bandwidths between a prefilling and a decoding device below which choosing a tenth of the cache and sending that takes less time
// than sending all of it (scenarios/kv-break-even.yaml), from kernels measured here. Each method serves one prompt of each length with a
// few layers of Llama-3.1-8B, its caches going through host memory, so that whatever choosing, compacting and placing them takes is timed,
// with prefill around it; what recording an op costs is taken off (exec/run-costs.ts, as `exec profile`), told by the decoding steps after
// it. From these times the simulator answers for all layers, beside what it says by the table that ships, which has no scoring kernels.
//   npx node bench/native/kv-break-even.ts --backend cuda --out kv-break-even
//   npx node bench/native/kv-break-even.ts --backend cpu --out kv-break-even --prompts 96,256 --model \
//     "{layers: 2, width: 64, heads: 4, kvHeads: 2, ffnWidth: 128, vocabulary: 256}"
// Writes kv-break-even.json, and costs.arrow: `sim study scenarios/kv-break-even.yaml --set costs.ops=costs.arrow`.
import { mkdirSync, writeFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type { Estimate } from "../../core/cost/cost-model.ts"
import { median } from "../../core/median.ts"
import type { OpCost } from "../../core/profile.ts"
import { formatSeconds } from "../../core/units.ts"
import { CurrentBackend } from "../../exec/backend.ts"
import { rowOf, thisDevice, timeCopies } from "../../exec/bench.ts"
import { execute } from "../../exec/execute.ts"
import type { Recording } from "../../exec/recording-cost.ts"
import { costsOfRun } from "../../exec/run-costs.ts"
import { timedAndPlain } from "../../exec/timed-and-plain.ts"
import { kernels } from "../../scenarios/families/kv-serving/kernels.ts"
import type { KvServingScenario } from "../../scenarios/families/kv-serving/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { runScenario, simulator } from "../../sim/run.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { tableProfile } from "../../traces/table-profile.ts"
import { backendOf, numbersOf, optionsOf, positiveNumber, wholeNumber } from "../numbers.ts"

const llama8b = { width: 4096, heads: 32, kvHeads: 8, ffnWidth: 14_336, vocabulary: 128_256 }

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    prompts: { type: "string", default: "32768,131072" },
    keep: { type: "string", default: "0.1" },
    /** Runs of each method and length: a kernel's time is the median of all. */
    rounds: { type: "string", default: "3" },
    /** What is run, as a scenario has it; default: two layers of Llama-3.1-8B. */
    model: { type: "string", default: JSON.stringify({ ...llama8b, layers: 2 }) },
    /** What is predicted; default: the model with this many layers. */
    layers: { type: "string", default: "32" },
    out: { type: "string", default: "kv-break-even" }
  }
})
const backend = backendOf(options.backend)
const root = fileURLToPath(new URL("../..", import.meta.url))
const file = path.join(root, "scenarios/kv-break-even.yaml")
const out = path.resolve(options.out)
const costs = path.join(out, "costs.arrow")
const loader = new Loader()
const prompts = numbersOf("--prompts", options.prompts, wholeNumber)
const rounds = wholeNumber("--rounds", options.rounds)
const layers = wholeNumber("--layers", options.layers)
const keep = positiveNumber("--keep", options.keep, 1)

/** The steps between the first and the last are what recording is told by: of so many, most were not the first of their kind. */
const outputTokens = 12

/** The study's. */
const methods: ReadonlyArray<Readonly<Record<string, unknown>>> = [
  { name: "full" },
  { name: "streaming-llm", keep },
  { name: "h2o", keep },
  { name: "snapkv", keep },
  { name: "pyramidkv", keep },
  { name: "chunkkv", keep },
  { name: "chunkkv", keep, reuse: 2 },
  { name: "chunkkv", keep, rule: "kvpress" },
  { name: "shotkv", keep }
]

const nameOf = ({ name, reuse, rule }: Readonly<Record<string, unknown>>): string =>
  [
    name,
    ...(rule === undefined ? [] : [rule]),
    ...(reuse === undefined ? [] : [`reuse ${String(reuse)}`])
  ].join(", ")

const scenarioWith = (
  method: Readonly<Record<string, unknown>>,
  prompt: number,
  ...more: ReadonlyArray<string>
) =>
  Effect.map(
    loadScenario(file, [
      `algorithm=${JSON.stringify(method)}`,
      `model=${options.model}`,
      `requests={count: 1, prompt: ${prompt}, output: ${outputTokens}}`,
      ...more
    ]),
    (scenario) => scenario as KvServingScenario
  )

/** `warm`: the process has served a prompt of that length. */
const run = (method: Readonly<Record<string, unknown>>, prompt: number, warm: boolean) =>
  Effect.gen(function* () {
    const scenario = yield* scenarioWith(method, prompt, "transfer={to: host}")
    const { world, program, initial, h2d, d2h } = yield* kernels(scenario, file, { loader, simulator })
    const once = () => ({ program: program() })
    const execution = { world, initial, h2d, d2h }
    if (!warm) yield* execute({ ...execution, ...once() })
    return yield* costsOfRun(yield* timedAndPlain(execution, { timed: once(), plain: [once] }, undefined))
  })

const keyOf = ({ op, attributes, dtype }: OpCost): string =>
  `${op} ${dtype} ${Object.values(attributes).join(" ")}`

/** Rows of several runs, each at their median. */
const together = (rows: ReadonlyArray<OpCost>): ReadonlyArray<OpCost> =>
  [...Map.groupBy(rows, keyOf).values()].map((alike) => ({
    ...alike[0]!,
    medianSeconds: median(alike.map(({ medianSeconds }) => medianSeconds))
  }))

interface Answer {
  readonly bytesPerSecond: number
  readonly estimates: ReadonlyArray<Estimate>
}

const predicted = (
  method: Readonly<Record<string, unknown>>,
  prompt: number,
  ...more: ReadonlyArray<string>
) =>
  Effect.gen(function* () {
    const scenario = yield* scenarioWith(method, prompt, `model.layers=${layers}`, ...more)
    const { result } = yield* runScenario(scenario, file, { loader })
    const answer: Answer = {
      bytesPerSecond: (result as typeof result & { readonly breakEvenBytesPerSecond: number })
        .breakEvenBytesPerSecond,
      estimates: result.estimates
    }
    return answer
  })

interface Row {
  readonly prompt: number
  readonly method: string
  /** Of one layer, the median of those measured: every kernel that chooses, compacts and places. */
  readonly kernels: Readonly<Record<string, number>>
  /** Of each round, where timing ops costs something. */
  readonly recordings: ReadonlyArray<Recording>
  readonly measured: Answer
  /** By the table that ships. */
  readonly bound: Answer
}

/** Seconds by kernel of what handing a cache over takes beside prefill, in a layer that has it. */
const handOver = (ops: ReadonlyArray<OpCost>): Readonly<Record<string, number>> => {
  const own = ops.filter(
    ({ op }) => op.startsWith("kv.") && !["kv.attention", "kv.append", "kv.advance"].includes(op)
  )
  // layers that keep different numbers of tokens have rows of their own
  return Object.fromEntries(
    [...Map.groupBy(own, ({ op }) => op)].map(([op, rows]) => [
      op,
      median(rows.map(({ medianSeconds }) => medianSeconds))
    ])
  )
}

const gigabits = (bytesPerSecond: number): string =>
  bytesPerSecond >= 1e13 ? "any" : `${((8 * bytesPerSecond) / 1e9).toPrecision(3)}`

const bench = Effect.gen(function* () {
  const device = yield* thisDevice
  const rows: Array<OpCost> = []
  const own = new Map<string, Pick<Row, "kernels" | "recordings">>()
  for (const prompt of prompts) {
    let warm = false
    for (const method of methods) {
      const began = performance.now()
      const each: Array<OpCost> = []
      const recordings: Array<Recording> = []
      for (let round = 0; round < rounds; round++) {
        const { ops, recording } = yield* run(method, prompt, warm)
        each.push(...ops)
        if (recording !== undefined) recordings.push(recording)
        warm = true
      }
      rows.push(...each)
      own.set(`${nameOf(method)} ${prompt}`, { kernels: handOver(together(each)), recordings })
      process.stderr.write(
        `${prompt} tokens, ${nameOf(method)}: measured in ${formatSeconds((performance.now() - began) / 1e3)}\n`
      )
    }
  }
  yield* writeProfile(
    costs,
    tableProfile(
      "break-even bench",
      { name: "kv-break-even", device },
      { ops: [...together(rows), ...(yield* timeCopies).map(rowOf)] }
    )
  )
  const answers: Array<Row> = []
  for (const prompt of prompts)
    for (const method of methods.slice(1))
      answers.push({
        prompt,
        method: nameOf(method),
        ...own.get(`${nameOf(method)} ${prompt}`)!,
        measured: yield* predicted(method, prompt, `costs={ops: ${JSON.stringify(costs)}}`),
        bound: yield* predicted(method, prompt)
      })
  const { model, layers } = options
  writeFileSync(
    path.join(out, "kv-break-even.json"),
    JSON.stringify({ device, backend, model, layers, keep, rows: answers }, undefined, 1)
  )
  console.log(`${device}: ${layers} layers, ${100 * keep} % kept; break-even in Gbit/s`)
  const table = [
    ["prompt", "method", "measured", "by the shipped table", "choosing, compacting, placing a layer"],
    ...answers.map(({ prompt, method, measured, bound, kernels: each }) => [
      String(prompt),
      method,
      gigabits(measured.bytesPerSecond),
      gigabits(bound.bytesPerSecond),
      Object.entries(each)
        .map(([op, seconds]) => `${op.slice(3)} ${formatSeconds(seconds)}`)
        .join(", ")
    ])
  ]
  for (const line of alignColumns(table, (column) => column === 2 || column === 3)) console.log(line)
})

mkdirSync(out, { recursive: true })
await Effect.runPromise(Effect.provideService(bench, CurrentBackend, backend))
