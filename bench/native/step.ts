// What a training step costs the host: submitting all ops of a 12-layer GPT-2 with AdamW through the executor's machine, and
// whether its memory grows over 10,000 steps. The model is narrow, so that the device has little to do; the ops are those of
// the full one. Needs the native addon.
//   npm run bench:native:step            or with --json
import * as Effect from "effect/Effect"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { Machine } from "../../core/machine/machine.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { makeWorld } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"

const steps = 10_000
const warm = 2_000
const round = 100

const graph = gpt2({ layers: 12, width: 4, heads: 1, vocabulary: 8, context: 4, batch: 1 })

/** Microseconds of this thread's processor time. */
const cpuMicros = (): number => {
  const { user, system } = process.threadCpuUsage()
  return user + system
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const program = Effect.gen(function* () {
  const machine = yield* Machine
  const model = yield* kernelModel({
    graph,
    optimizer: { name: "adamw", learningRate: 1e-3, weightDecay: 0.01 },
    corpus: Int32Array.from({ length: 64 }, (_, i) => i % 8),
    seed: 1
  })
  const update = model.update([...model.layers.keys()])
  let ops = 0
  const submitStep = (step: number): void => {
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
      const start = cpuMicros()
      submitStep(step + i)
      own += cpuMicros() - start
      yield* machine.endStep
    }
    if (step < warm) continue
    submitted.push(own / round)
    whole.push((cpuMicros() - begun) / round)
  }
  yield* machine.drain
  return {
    ops,
    submitMicrosPerStep: median(submitted),
    hostMicrosPerStep: median(whole),
    grownBytes: process.memoryUsage().rss - before
  }
})

const unlimited = { bytesPerSecond: Infinity, latencySeconds: 0 }
const world = makeWorld([{ name: "here", nodes: [1] }], {
  intra: unlimited,
  inter: unlimited,
  wan: undefined
})
const { ranks } = await Effect.runPromise(execute({ world, program }))
const result = ranks[0]!.value
if (process.argv.includes("--json")) console.log(JSON.stringify(result))
else {
  console.log(`${result.ops} ops of a step, median of ${steps / round} rounds of ${round} steps`)
  console.log(
    `submitting them      ${result.submitMicrosPerStep.toFixed(0).padStart(6)} us of host CPU a step`
  )
  console.log(`with waiting for it  ${result.hostMicrosPerStep.toFixed(0).padStart(6)} us`)
  console.log(`memory after ${steps} steps more: ${(result.grownBytes / 1e6).toFixed(1)} MB`)
}
