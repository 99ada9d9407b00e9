// Layers of experts that learn for real, on two nodes of two ranks: the loss falls, and no schedule changes what is computed.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { expect, it } from "vitest"
import { moeTrainingNames } from "../../core/algorithms/moe-training/algorithms.ts"
import { MoeTrainingScenario } from "../../scenarios/families/moe-training/scenario.ts"
import { training, type Learnt } from "../../exec/train/train.ts"
import { trainable } from "../../scenarios/families/moe-training/kernels.ts"
import { Loader } from "../../scenarios/load.ts"
import { describeNative } from "./addon.ts"

const steps = 25

const train = (algorithm: string, capacityFactor: number | "dropless"): Promise<Learnt> => {
  const scenario = Schema.decodeUnknownSync(MoeTrainingScenario)({
    task: "moe-training",
    name: "layers that learn",
    model: {
      layers: 2,
      width: 16,
      hidden: 24,
      heads: 4,
      sequence: 8,
      batch: 2,
      experts: 4,
      capacityFactor,
      dtype: "float32"
    },
    world: { ranks: 4, ranksPerNode: 2 },
    algorithm: { name: algorithm },
    learningRate: 0.1
  })
  return Effect.runPromise(
    Effect.gen(function* () {
      const host = { loader: new Loader() }
      const { run, learnt } = training(yield* trainable(scenario, "generated.yaml", host, { steps }))
      yield* run
      return learnt()
    })
  )
}

describeNative("layers of experts learn for real", () => {
  for (const capacityFactor of [1.5, "dropless"] as const) {
    it(`alike with every schedule (capacity factor ${capacityFactor})`, async () => {
      const first = await train("deepspeed-moe", capacityFactor)
      expect(first).toMatchObject({ stepsDone: steps, tokens: steps * 2 * 2 * 8, heldOutLosses: [] })
      const [begin, end] = [first.losses[0]!.loss, first.losses.at(-1)!.loss]
      expect(end).toBeLessThan(0.2 * begin)
      for (const name of moeTrainingNames) {
        const { losses } = await train(name, capacityFactor)
        losses.forEach(({ loss }, step) => {
          const expected = first.losses[step]!.loss
          expect(Math.abs(loss / expected - 1), `${name}, step ${step}`).toBeLessThan(1e-3)
        })
      }
    })
  }
})
