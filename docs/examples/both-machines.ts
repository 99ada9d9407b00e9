// The example of docs/testing.md, for real: the same scheduler on real kernels, held to the simulator.
// #region real
import * as Effect from "effect/Effect"
import { gpt2, kernelModel } from "tandem"
import { corpusOf, Loader, planScenario, shippedText } from "tandem/scenarios"
import { decodeScenario, runOnBoth, type Scheduler } from "tandem/testing"

const sizes = { layers: 2, width: 32, heads: 2, vocabulary: 64, context: 16, batch: 2 }

/** Trains a small GPT-2 on two ranks, on the executor's cpu backend and then on the simulator, and compares the two. */
export const onBoth = (scheduler: Scheduler) =>
  Effect.gen(function* () {
    const scenario = decodeScenario({
      name: "staggered, for real",
      model: { gpt2: sizes },
      world: { ranks: 2, links: { inter: { bandwidth: "100Mbit/s" } } },
      algorithm: { name: "local-sgd", period: 4 },
      device: { name: "a core", flops: "20GFLOP/s", memoryBandwidth: "10GB/s" }
    })
    const plan = yield* planScenario(scenario, "here.yaml", new Loader())
    const { train } = corpusOf(shippedText, 0.1)
    const model = kernelModel({
      graph: gpt2(sizes),
      optimizer: { name: "adamw", learningRate: 1e-3 },
      corpus: { tokens: train.length, chunkTokens: train.length, chunk: () => train },
      seed: 1
    })
    const program = () => scheduler({ ...plan, scenario, model, steps: 8 })
    const { agreement } = yield* runOnBoth({ world: plan.world, program })
    return agreement
  })
// #endregion
