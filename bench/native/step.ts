// What a training step costs the host: submitting all ops of a 12-layer GPT-2 with AdamW through the executor's machine, and
// whether its memory grows over 10,000 steps. The model is narrow, so that the device has little to do, and each step begins
// with an op that takes its time: a lane that has run dry must be woken for every op, and a real one has not. The ops are
// those of the full model. Needs the native addon.
//   npm run bench:native:step            or with --json; with --unfused, a kernel of its own for each part of a composite
import * as Effect from "effect/Effect"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { median } from "../../core/median.ts"
import { optionsOf } from "../numbers.ts"

const { values: options } = optionsOf({
  options: { json: { type: "boolean", default: false }, unfused: { type: "boolean", default: false } }
})

const steps = 10_000
const warm = 1_000
const round = 100

const graph = gpt2({ layers: 12, width: 4, heads: 1, vocabulary: 8, context: 4, batch: 1 })

/** Microseconds of this thread's processor time; of a stretch without a wait some kernels count what was before the last tick alone. */
const cpuMicros = (): number => {
  const { user, system } = process.threadCpuUsage()
  return user + system
}

/** Of the rounds, the one below which this share of them lies. */
const quantile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)]!

const spreadOf = (values: ReadonlyArray<number>) => ({
  least: quantile(values, 0),
  bestTenth: quantile(values, 0.1),
  median: median(values),
  worstTenth: quantile(values, 0.9)
})

const program = Effect.gen(function* () {
  const machine = yield* Machine
  const model = yield* kernelModel({
    graph,
    optimizer: { name: "adamw", learningRate: 1e-3, weightDecay: 0.01 },
    corpus: wholeCorpus(Int32Array.from({ length: 64 }, (_, i) => i % 8)),
    seed: 1,
    ...(options.unfused ? { rules: [] } : {})
  })
  const update = model.update([...model.layers.keys()])
  let ops = 0
  const busy = launch("busy", kernels.profiled, Lane.compute, [], [], { layer: 0, phase: "forward" })
  const submitStep = (step: number): void => {
    machine.submit(busy)
    const batch = model.begin(step)
    submitAll(machine, batch)
    for (const { forward } of model.layers) for (const op of forward) machine.submit(op)
    for (const { backward } of model.layers.toReversed()) for (const op of backward) machine.submit(op)
    const updates = update(step)
    submitAll(machine, updates)
    ops =
      batch.length +
      updates.length +
      model.layers.reduce((sum, { forward, backward }) => sum + forward.length + backward.length, 0)
  }
  const submitted: Array<number> = []
  const whole: Array<number> = []
  let before = 0
  for (let step = 0; step < warm + steps; step += round) {
    if (step === warm) before = process.memoryUsage().rss
    const begun = cpuMicros()
    let own = 0
    for (let i = 0; i < round; i++) {
      const start = performance.now()
      submitStep(step + i)
      own += 1e3 * (performance.now() - start)
      yield* machine.endStep
    }
    if (step < warm) continue
    submitted.push(own / round)
    whole.push((cpuMicros() - begun) / round)
  }
  yield* machine.drain
  return {
    ops,
    submitMicrosPerStep: spreadOf(submitted),
    hostMicrosPerStep: spreadOf(whole),
    grownBytes: process.memoryUsage().rss - before
  }
})

const world = makeWorld([{ name: "here", nodes: [1] }], unlimitedLinks)
const { ranks } = await Effect.runPromise(
  execute({
    world,
    program,
    prepare: (_, { label }) => (label === "busy" ? { seconds: 0.002 } : undefined)
  })
)
const result = ranks[0]!.value
if (options.json) console.log(JSON.stringify(result))
else {
  const show = (
    what: string,
    of: string,
    { least, bestTenth, median, worstTenth }: ReturnType<typeof spreadOf>
  ): void => {
    const [lowest, best, middle, worst] = [least, bestTenth, median, worstTenth].map((us) => us.toFixed(0))
    console.log(
      `${what.padEnd(22)}${middle!.padStart(6)} us ${of} a step; least ${lowest}, tenths ${best} and ${worst}`
    )
  }
  console.log(`${result.ops} ops of a step, median of ${steps / round} rounds of ${round} steps`)
  show("submitting them", "elapsed", result.submitMicrosPerStep)
  show("with waiting for it", "of host CPU", result.hostMicrosPerStep)
  console.log(`memory after ${steps} steps more: ${(result.grownBytes / 1e6).toFixed(1)} MB`)
}
