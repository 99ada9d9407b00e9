// A tiny GPT-2 that learns from text for real: with every data-parallel algorithm, on several ranks, the same bits every time.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import type { AlgorithmInput } from "../../testing/algorithm.ts"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { corpusOf } from "../../scenarios/text.ts"
import { training } from "../../exec/train/train.ts"
import { flatWorld, plan } from "../simulate/simulated.ts"
import { tinyProfile } from "../training/tiny.ts"
import { describeNative } from "./addon.ts"

/** Sentences that a model of bigrams cannot tell apart but one that looks back can. */
const text = "the cat sat on the mat. the dog lay in the sun. the cow ate all the hay. ".repeat(60)
const corpus = corpusOf(text, 0.1)
const batch = 4
const context = 16
const vocabulary = corpus.characters.length
const graph = gpt2({
  layers: 1,
  width: 24,
  heads: 2,
  vocabulary,
  context,
  batch,
  activationDtype: "float32"
})
const steps = 60

/** Where the defaults would not do in so few steps. */
const settings: Partial<Record<(typeof dataParallelNames)[number], AlgorithmInput>> = {
  ddp: { name: "ddp", buckets: "per-layer", deadline: "next-use" },
  "local-sgd": { name: "local-sgd", period: 4 },
  "partial-local-sgd": { name: "partial-local-sgd", period: 4 },
  dreamddp: { name: "dreamddp", period: 4, deadline: "next-use" },
  // With as few as 15 outer steps, so much momentum would only overshoot.
  diloco: { name: "diloco", period: 4, outerMomentum: 0.5 },
  "streaming-diloco": { name: "streaming-diloco", period: 6, fragments: 3 }
}

const train = (name: (typeof dataParallelNames)[number], ranks: number, seed: number) => {
  const world = flatWorld(ranks)
  const { planned } = plan(settings[name] ?? { name }, tinyProfile(graph), world)
  const build = kernelModel({
    graph,
    optimizer: { name: "adamw", learningRate: 0.01 },
    corpus: wholeCorpus(corpus.train),
    heldOut: corpus.heldOut,
    seed
  })
  const { run, learnt } = training({
    world,
    batchTokens: batch * context,
    program: ({ loss, heldOutLoss }) =>
      observed(build, (model) => planned.program(model, steps), {
        everySteps: 1,
        onLoss: loss,
        evaluation: { everySteps: 40, lastStep: steps, batches: 4, onLoss: heldOutLoss }
      })
  })
  return Effect.runPromise(Effect.map(run, () => learnt()))
}

describeNative("a tiny GPT-2 learns for real", () => {
  for (const [index, name] of dataParallelNames.entries()) {
    const ranks = 2 + (index % 3)
    it(`${name} on ${ranks} ranks`, async () => {
      const learnt = await train(name, ranks, 1)
      expect(learnt.stepsDone).toBe(steps)
      expect(learnt.tokens).toBe(steps * ranks * batch * context)
      expect(learnt.tokensPerSecond).toBeCloseTo(learnt.tokens / learnt.seconds)
      expect(learnt.losses.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1))
      expect(learnt.heldOutLosses.map(({ step }) => step)).toEqual([40, steps])
      // It begins with a uniform guess, and ends well below what the frequencies of characters alone would give.
      expect(Math.abs(learnt.losses[0]!.loss - Math.log(vocabulary))).toBeLessThan(0.1)
      expect(learnt.losses.at(-1)!.loss).toBeLessThan(entropy - 0.4)
      expect(learnt.heldOutLosses.at(-1)!.loss).toBeLessThan(entropy - 0.4)

      const { losses, heldOutLosses } = await train(name, ranks, 1)
      expect({ losses, heldOutLosses }).toEqual({
        losses: learnt.losses,
        heldOutLosses: learnt.heldOutLosses
      })
    })
  }

  it("otherwise with another seed", async () => {
    const [one, other] = [await train("diloco", 2, 1), await train("diloco", 2, 2)]
    expect(other.losses).not.toEqual(one.losses)
  })
})

/** Of the text's characters, each by itself, in nats. */
const entropy = corpus.characters.reduce((sum, character) => {
  const share = [...text].filter((one) => one === character).length / text.length
  return sum - share * Math.log(share)
}, 0)
