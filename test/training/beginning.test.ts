// A run that begins with saved weights has them to the bit, padded or not, in either kind of file; and others than the model's are
// refused with file and field.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { training } from "../../exec/train/train.ts"
import { dataParallel } from "../../scenarios/families/data-parallel/family.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { writeWeights, type SavedWeights } from "../../traces/weights-file.ts"
import { describeNative } from "../native/addon.ts"

const folder = mkdtempSync(path.join(tmpdir(), "beginning-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const scenario = path.join(folder, "tiny.yaml")
writeFileSync(
  scenario,
  `name: tiny
model:
  llama: { layers: 1, width: 8, heads: 2, kvHeads: 1, ffnWidth: 12, vocabulary: 63, context: 8, batch: 2, tied: false }
world: { ranks: 2 }
algorithm: s-sgd
training: { heldOut: 0 }
`
)

interface Choices {
  readonly steps: number
  readonly weights?: string
}

const trainableOf = (set: ReadonlyArray<string>, choices: Choices) =>
  Effect.flatMap(loadScenario(scenario, set), (loaded) =>
    dataParallel.train!(loaded as DataParallelScenario, scenario, { loader: new Loader() }, choices)
  )

const trained = (set: ReadonlyArray<string>, choices: Choices) =>
  Effect.gen(function* () {
    const trainable = yield* trainableOf(set, choices)
    let learnt: SavedWeights | undefined
    yield* training(trainable, { atEnd: ({ valuesOf }) => (learnt = trainable.weights!(valuesOf)) }).run
    return learnt!
  })

const nothingLearnt = "training.optimizer={name: sgd, learningRate: 0}"

describeNative("saved weights", () => {
  let saved: SavedWeights
  const files = ["w.arrow", "w.safetensors"].map((name) => path.join(folder, name))
  beforeAll(async () => {
    saved = await Effect.runPromise(trained([], { steps: 4 }))
    for (const file of files) await Effect.runPromise(writeWeights(file, saved))
  })

  it.each([[], ["model.llama.vocabularyMultiple=32"]])("are as many as a run tells: %s", async (...set) => {
    const told = (await Effect.runPromise(trainableOf(set, { steps: 1 }))).parameters
    expect(told).toBe(saved.parameters.reduce((sum, { values }) => sum + values.length, 0))
  })

  it.each([[], ["model.llama.vocabularyMultiple=32"], ["model.llama.context=4"]])(
    "are what a run begins with: %s",
    async (...set) => {
      for (const weights of files) {
        const { parameters } = await Effect.runPromise(
          trained([nothingLearnt, ...set], { steps: 1, weights })
        )
        expect(parameters).toEqual(saved.parameters)
      }
      const { parameters } = await Effect.runPromise(trained([nothingLearnt, ...set], { steps: 1 }))
      expect(parameters).not.toEqual(saved.parameters)
    }
  )

  it.each([
    [
      "model.llama.width=16",
      /w\.arrow: sizes\.width: 8 is not accepted; expected 16, as the scenario's model/u
    ],
    ["model.llama.tied=true", /w\.arrow: sizes\.tied: false is not accepted; expected true/u],
    [
      "model={gpt2: {layers: 1, width: 8, heads: 2, vocabulary: 63, context: 8, batch: 2}}",
      /w\.arrow: model: "llama" is not accepted; expected "gpt2"/u
    ],
    ["training.text=other.txt", /w\.arrow: characters: ".*" is not accepted; expected "abc", as the text/u]
  ])("of another model are refused: %s", async (set, message) => {
    writeFileSync(path.join(folder, "other.txt"), "abc".repeat(20))
    const refused = Effect.flip(trained([set], { steps: 1, weights: files[0]! }))
    expect((await Effect.runPromise(refused)).message).toMatch(message)
  })
})
