// The loss of GPT-2 124M over some hundreds of steps, at full speed: bfloat16 layers, float32 masters, AdamW. Writes what PyTorch
// needs to do the same (bench/native/torch-loss.py): the first weights as safetensors, the text, and each step's loss.
//   npx node bench/native/loss-curve.ts --backend cuda --out curve
import { readFileSync, writeFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { Machine } from "../../core/machine/machine.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { firstValues, writeForTorch, writeWeights } from "./for-torch.ts"
import { gpt2At } from "./gpt2-124m.ts"
import { backendOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    batch: { type: "string", default: "4" },
    context: { type: "string", default: "1024" },
    layers: { type: "string", default: "12" },
    steps: { type: "string", default: "500" },
    seed: { type: "string", default: "1" },
    /** Steps in which the rate rises to 3e-4; 0: none, and then single steps stand out. */
    "warm-up": { type: "string", default: "100" },
    /** A step that stands out: the weights that it begins with are written too (weights.safetensors). */
    "weights-of": { type: "string" },
    out: { type: "string", default: "curve" }
  }
})
const backend = backendOf(values.backend)
const [batch, context, layers, steps, seed] = [
  wholeNumber("--batch", values.batch),
  wholeNumber("--context", values.context),
  wholeNumber("--layers", values.layers),
  wholeNumber("--steps", values.steps),
  wholeNumber("--seed", values.seed, 0)
]

const warmupSteps = wholeNumber("--warm-up", values["warm-up"], 0)
const learningRate = 3e-4
const schedule = { warmupSteps, decayUntilStep: Infinity, finalShare: 1, decay: "linear" } as const
const weightsOf =
  values["weights-of"] === undefined ? undefined : wholeNumber("--weights-of", values["weights-of"])

const graph = gpt2At({ layers, context, batch })

// the text that ships, a token for each of its bytes
const corpus = Int32Array.from(readFileSync(new URL("../../scenarios/texts/psalms.txt", import.meta.url)))
const first = firstValues(graph, seed)
const wanted = new Map<string, TensorData>()

const program = Effect.gen(function* () {
  const machine = yield* Machine
  const model = yield* kernelModel({
    graph,
    optimizer: { name: "adamw", learningRate, weightDecay: 0.1, schedule },
    corpus: wholeCorpus(corpus),
    seed,
    initial:
      ({ name }) =>
      () =>
        first.get(name)!
  })
  const update = model.update([...model.layers.keys()])
  const reversed = model.layers.toReversed()
  const losses: Array<number> = []
  for (let step = 0; step < steps; step++) {
    if (step + 1 === weightsOf)
      for (const parameter of model.layers.flatMap(({ parameters }) => parameters))
        wanted.set(parameter.name, yield* machine.read(parameter))
    submitAll(machine, model.begin(step))
    for (const { forward } of model.layers) for (const op of forward) machine.submit(op)
    for (const { backward } of reversed) for (const op of backward) machine.submit(op)
    submitAll(machine, update(step))
    yield* machine.endStep
    losses.push((yield* machine.read(model.loss))[0]!)
  }
  return losses
})

const world = makeWorld([{ name: "here", nodes: [1] }], unlimitedLinks)
const { ranks } = await Effect.runPromise(execute({ world, program, backend }))

writeForTorch(values.out, graph, first, { text: corpus })
if (wanted.size > 0) writeWeights(`${values.out}/weights.safetensors`, graph, wanted)
writeFileSync(
  `${values.out}/losses.json`,
  JSON.stringify({ batch, context, layers, steps, seed, learningRate, warmupSteps, losses: ranks[0]!.value })
)
const at = [...new Set([0, 9, 49, 99, 199, 299, 399, steps - 1])].filter((step) => step < steps)
console.log(at.map((step) => `step ${step + 1}: ${ranks[0]!.value[step]!.toFixed(4)}`).join(", "))
