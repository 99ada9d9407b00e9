// What a decoded token costs the host: this thread's processor time for a step of decoding through the executor's machine, the
// wait for its token included, that of all threads, how long it takes, and how many ops are prepared for it. Serving, with a cache for each sequence, and experts in
// host memory. The models are narrow, so that the device has little to do; the ops are those of models of 12 layers. What comes
// once (weights, prompts, the first steps) is taken out by comparing a long run with a short one. Needs the native addon.
//   npm run bench:native:decode            or with --json, and -- --backend cuda on a GPU
import * as Effect from "effect/Effect"
import { makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import { expertOffload } from "../../core/algorithms/expert-offload/program.ts"
import { serve } from "../../core/algorithms/kv-serving/serve.ts"
import type { Program } from "../../core/machine/machine.ts"
import { Random } from "../../core/random.ts"
import { oneRank } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { median } from "../../core/median.ts"
import { replayed } from "./replayed.ts"
import { backendOf, optionsOf } from "../numbers.ts"

const { values } = optionsOf({
  options: { backend: { type: "string", default: "cpu" }, json: { type: "boolean", default: false } }
})
const backend = backendOf(values.backend)
const layers = 12
const experts = 4
const batch = 4
const rounds = 7
const [short, long] = [100, 700]

const sizes = {
  layers,
  width: 8,
  heads: 2,
  kvHeads: 1,
  ffnWidth: 8,
  vocabulary: 16,
  dtype: "float32"
} as const

const serving = (tokens: number): Program<unknown> =>
  serve({
    model: { ...sizes, tied: false, ropeBase: 10_000 },
    settings: { name: "full" },
    requests: Array.from({ length: batch }, (_, id) => ({
      id,
      arrivalSeconds: 0,
      promptTokens: 4,
      outputTokens: tokens
    })),
    maxBatch: batch
  })

const facts = {
  slots: experts,
  stagingSlots: 0,
  scope: "per-layer",
  window: 0,
  weights: { source: "none", features: [], weights: [] },
  random: new Random(1)
} as const

const offloading = (tokens: number): Program<unknown> => {
  const model = { ...sizes, experts, topK: 2, gated: true, normalize: true }
  return expertOffload({
    model,
    workload: { batch, promptTokens: 4, prefill: false, decodeTokens: tokens },
    // A slot for each expert: after the first of each, nothing is loaded any more.
    strategy: () => makeStrategy({ name: "lru" }, { ...facts, demand: { shape: model, calls: [] } }),
    writeBack: "none",
    seed: 1
  })
}

interface Measured {
  readonly micros: number
  readonly prepared: number
  readonly elapsedMicros: number
  readonly allMicros: number
  readonly graphs: string | undefined
}

/** Microseconds of this thread's processor time, of all threads' and of a clock, and ops prepared, of one run. */
const measure = async (program: Program<unknown>): Promise<Measured> => {
  let prepared = 0
  const [begun, began, started] = [process.threadCpuUsage(), process.cpuUsage(), performance.now()]
  const { replays } = await Effect.runPromise(
    execute({
      world: oneRank,
      program,
      backend,
      prepare: () => {
        prepared++
        return undefined
      }
    })
  )
  const elapsedMicros = (performance.now() - started) * 1e3
  const { user, system } = process.threadCpuUsage(begun)
  const all = process.cpuUsage(began)
  const graphs = replays === undefined ? undefined : replayed(replays)
  return { micros: user + system, prepared, elapsedMicros, allMicros: all.user + all.system, graphs }
}

interface PerToken {
  readonly hostMicrosPerToken: number
  readonly allThreadsMicrosPerToken: number
  readonly elapsedMicrosPerToken: number
  readonly preparedPerToken: number
  /** Of the last long run; where the backend has graphs. */
  readonly graphs?: string
}

const result: Record<string, PerToken> = {}
for (const [name, program] of Object.entries({ serving, offloading })) {
  await measure(program(long))
  const host: Array<number> = []
  const all: Array<number> = []
  const elapsed: Array<number> = []
  let prepared = 0
  let graphs: string | undefined
  for (let round = 0; round < rounds; round++) {
    const few = await measure(program(short))
    const many = await measure(program(long))
    host.push((many.micros - few.micros) / (long - short))
    all.push((many.allMicros - few.allMicros) / (long - short))
    elapsed.push((many.elapsedMicros - few.elapsedMicros) / (long - short))
    graphs = many.graphs
    prepared = (many.prepared - few.prepared) / (long - short)
  }
  result[name] = {
    hostMicrosPerToken: median(host),
    allThreadsMicrosPerToken: median(all),
    elapsedMicrosPerToken: median(elapsed),
    preparedPerToken: prepared,
    ...(graphs === undefined ? {} : { graphs })
  }
}
if (values.json) console.log(JSON.stringify(result))
else {
  console.log(`a decoding step of ${batch} sequences, ${layers} layers; median of ${rounds} rounds`)
  for (const [name, of] of Object.entries(result)) {
    console.log(
      `${name.padEnd(12)}${of.hostMicrosPerToken.toFixed(0).padStart(6)} us of host CPU, ` +
        `${of.allThreadsMicrosPerToken.toFixed(0)} of all threads, ${of.elapsedMicrosPerToken.toFixed(0)} elapsed, ` +
        `${of.preparedPerToken} ops prepared${of.graphs === undefined ? "" : `, graphs ${of.graphs}`}`
    )
  }
}
