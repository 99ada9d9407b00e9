// A training step of GPT-2 124M at full speed: bfloat16 layers, float32 masters, AdamW, ops fused and submitted by the executor's
// machine. Wall time of a step, the processor time of the thread that submits and of all threads, and the loss.
//   TANDEM_CUDA_GRAPHS=0 npx node bench/native/train-step.ts --backend cuda --batch 4    op by op, without CUDA graphs
//   npx node bench/native/train-step.ts --backend cuda --batch 4
//   npx node bench/native/train-step.ts --backend cuda --batch 4 --precision float16    or float32, tf32: as training.precision
import * as Effect from "effect/Effect"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { Machine } from "../../core/machine/machine.ts"
import { inTf32 } from "../../core/models/tf32.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { median } from "../../core/median.ts"
import { gpt2At } from "./gpt2-124m.ts"
import { replayed } from "./replayed.ts"
import { backendOf, nameOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    batch: { type: "string", default: "4" },
    context: { type: "string", default: "1024" },
    layers: { type: "string", default: "12" },
    vocabulary: { type: "string", default: "50257" },
    multiple: { type: "string", default: "64" },
    rounds: { type: "string", default: "8" },
    steps: { type: "string", default: "10" },
    precision: { type: "string", default: "bfloat16" }
  }
})
const backend = backendOf(values.backend)
const [batch, context, layers, vocabulary] = [
  wholeNumber("--batch", values.batch),
  wholeNumber("--context", values.context),
  wholeNumber("--layers", values.layers),
  wholeNumber("--vocabulary", values.vocabulary)
]
const [rounds, steps] = [wholeNumber("--rounds", values.rounds), wholeNumber("--steps", values.steps)]

const precision = nameOf("--precision", values.precision, ["bfloat16", "float16", "float32", "tf32"])
const plain = gpt2At({
  layers,
  vocabulary,
  multiple: wholeNumber("--multiple", values.multiple),
  context,
  batch,
  dtype: precision === "tf32" ? "float32" : precision
})
const graph = precision === "tf32" ? inTf32(plain) : plain

let seed = 1
const corpus = Int32Array.from({ length: 1_000_000 }, () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return seed % vocabulary
})

const cpuMicros = (): number => {
  const { user, system } = process.threadCpuUsage()
  return user + system
}

const program = Effect.gen(function* () {
  const machine = yield* Machine
  const model = yield* kernelModel({
    graph,
    optimizer: { name: "adamw", learningRate: 3e-4, weightDecay: 0.1 },
    corpus: wholeCorpus(corpus),
    seed: 1,
    lossScaling:
      precision === "float16"
        ? { initial: 65536, growthInterval: 2000, growthFactor: 2, backoffFactor: 0.5 }
        : undefined
  })
  const update = model.update([...model.layers.keys()])
  const reversed = model.layers.toReversed()
  let ops = 0
  const submitStep = (step: number): void => {
    const begin = model.begin(step)
    submitAll(machine, begin)
    for (const { forward } of model.layers) for (const op of forward) machine.submit(op)
    for (const { backward } of reversed) for (const op of backward) machine.submit(op)
    for (const op of model.clip) machine.submit(op)
    const updates = update(step)
    submitAll(machine, updates)
    ops =
      begin.length +
      model.clip.length +
      updates.length +
      model.layers.reduce((sum, { forward, backward }) => sum + forward.length + backward.length, 0)
  }
  const losses: Array<number> = []
  const wall: Array<number> = []
  const host: Array<number> = []
  const threads: Array<number> = []
  for (let round = -1; round < rounds; round++) {
    const [started, begun] = [performance.now(), cpuMicros()]
    const before = process.cpuUsage()
    for (let i = 0; i < steps; i++) {
      submitStep((round + 1) * steps + i)
      yield* machine.endStep
    }
    const submitted = cpuMicros() - begun
    // reading the loss waits for the last step
    losses.push((yield* machine.read(model.loss))[0]!)
    yield* machine.drain
    if (round < 0) continue
    wall.push((performance.now() - started) / steps)
    const { user, system } = process.cpuUsage(before)
    threads.push((user + system) / steps / 1e3)
    host.push(submitted / steps / 1e3)
  }
  return { ops, losses, wallMillis: median(wall), hostMillis: median(host), threadsMillis: median(threads) }
})

const world = makeWorld([{ name: "here", nodes: [1] }], unlimitedLinks)
const { ranks, replays } = await Effect.runPromise(execute({ world, program, backend }))
const { value, peakBytes } = ranks[0]!
// 6 per parameter and token, and attention's products, half of them masked: Kaplan et al. 2020, PaLM's appendix B
const parameters = layers * 12 * 768 ** 2 + 50257 * 768
const flops = batch * context * (6 * parameters + 6 * layers * context * 768)
console.log(
  `${precision}, batch ${batch} x ${context}, vocabulary ${vocabulary} padded to multiples of ${values.multiple}: ` +
    `${value.wallMillis.toFixed(2)} ms a step, ${(flops / value.wallMillis / 1e9).toFixed(0)} TFLOP/s of the model, ` +
    `${value.ops} ops, ${value.hostMillis.toFixed(2)} ms of host CPU (all threads ${value.threadsMillis.toFixed(2)}), ` +
    (replays === undefined ? "" : `graphs ${replayed(replays)}, `) +
    `${(peakBytes.device / 1e9).toFixed(1)} GB of tensors, ` +
    `loss ${value.losses.map((loss) => loss.toFixed(3)).join(" ")}`
)
