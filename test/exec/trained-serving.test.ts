// Weights of a trained Llama behind the tensors of serving: with a full cache, every token that serving generates is the most
// probable one in the training graph's forward pass over the text so far, with the same weights through a file.
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { weightSpecs } from "../../core/algorithms/kv-serving/model.ts"
import type { ServingPlan } from "../../core/algorithms/kv-serving/server.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Kernel } from "../../core/kernels/kernel.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { callsOf, type LayerGraph } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { Random } from "../../core/random.ts"
import {
  loadTrained,
  textOf,
  trainedServing,
  type Trained
} from "../../scenarios/families/kv-serving/trained.ts"
import { architectureOf } from "../../scenarios/model-graph.ts"
import { encodeWeights, type SavedWeights } from "../../traces/index.ts"
import { finishedOf, places, simulated } from "../kv-serving/served.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-trained-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const sizes = { layers: 2, width: 16, heads: 4, kvHeads: 2, ffnWidth: 24, vocabulary: 11 }
const characters = [..."abcdefghijk"]
const text = join(folder, "text.txt")
const letters = new Random(5)
writeFileSync(
  text,
  characters.join("") + Array.from({ length: 200 }, () => characters[letters.below(11)]!).join("")
)

const graphOf = (tied: boolean, context: number): LayerGraph =>
  llama({ ...sizes, tied, context, batch: 1, activationDtype: "float32" })

/** Weights so large that tokens differ, norms included: as the training graph names and shapes its parameters. */
const weightsOf = (tied: boolean, seed: number): SavedWeights => {
  const random = new Random(seed)
  const settings = { llama: { ...sizes, tied, context: 64, batch: 4, vocabularyMultiple: 1 } }
  return {
    name: "made up",
    ...architectureOf(settings),
    characters,
    heldOut: 0.5,
    parameters: graphOf(tied, 64)
      .layers.flatMap(({ parameters }) => parameters)
      .map(({ name, shape, elements }) => {
        const size = shape.length === 1 ? 1 : 3 / Math.sqrt(shape[1]!)
        return {
          name,
          shape,
          values: Float32Array.from({ length: elements }, () => size * (2 * random.uniform() - 1))
        }
      })
  }
}

/** The most probable token after each of `tokens`, and how far it is ahead of the next best, at least. */
const mostProbable = (graph: LayerGraph, { parameters }: SavedWeights, tokens: Int32Array) => {
  const values = new Map<string, TensorData>(parameters.map(({ name, values }) => [name, values]))
  values.set(graph.inputs[0]!.name, tokens)
  values.set(graph.inputs[1]!.name, new Int32Array(tokens.length))
  const calls = callsOf(graph, "forward")
  for (const { kernel: name, inputs, outputs, attributes } of calls) {
    const kernel: Kernel = kernels[name]
    for (const { name, elements, dtype } of outputs)
      values.set(name, dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements))
    kernel.reference!(
      inputs.map((value) => values.get(value.name)!),
      outputs.map((value) => values.get(value.name)!),
      attributes,
      { inputs: inputs.map(({ shape }) => shape), outputs: outputs.map(({ shape }) => shape) }
    )
  }
  // The output layer's product: the last linear call.
  const logits = values.get(calls.findLast(({ kernel }) => kernel === "linear.forward")!.outputs[0]!.name)!
  let margin = Infinity
  const best = Array.from(tokens, (_, position) => {
    const row = Array.from(logits.slice(position * sizes.vocabulary, (position + 1) * sizes.vocabulary))
    const [first, second] = row.toSorted((a, b) => b - a)
    margin = Math.min(margin, first! - second!)
    return row.indexOf(first!)
  })
  return { best, margin }
}

const saved = (weights: SavedWeights): Promise<Trained> => {
  const file = join(folder, "weights.arrow")
  writeFileSync(file, encodeWeights(file, weights))
  return Effect.runPromise(loadTrained(file, text))
}

const planOf = (tied: boolean): ServingPlan => ({
  model: { ...sizes, tied, ropeBase: 500_000, dtype: "float32" },
  settings: { name: "full" },
  requests: [7, 12, 3, 20].map((promptTokens, id) => ({
    id,
    arrivalSeconds: 0,
    promptTokens,
    outputTokens: 6 + id
  })),
  maxBatch: 3
})

describe("serving trained weights", () => {
  it("has the parameters of the training graph, by name and shape", () => {
    for (const tied of [false, true]) {
      const of = (list: ReadonlyArray<{ name: string; shape: ReadonlyArray<number> }>) =>
        list.map(({ name, shape }) => `${name} ${shape.join("x")}`).toSorted()
      expect(of(weightSpecs(planOf(tied).model))).toEqual(
        of(graphOf(tied, 8).layers.flatMap(({ parameters }) => parameters))
      )
    }
  })

  it("generates the most probable tokens of the training graph's forward pass", async () => {
    let compared = 0
    const different = new Set<number>()
    for (const tied of [false, true]) {
      for (const seed of [1, 2, 3]) {
        const weights = weightsOf(tied, seed)
        const trained = await saved(weights)
        const { plan, initial } = await Effect.runPromise(trainedServing(planOf(tied), seed, trained, "s"))
        for (const place of places) {
          for (const { request, tokens } of finishedOf(simulated(plan, place, { values: initial }))) {
            const { id, promptTokens, outputTokens } = request
            const prompt = trained.prompt(id, promptTokens, seed)
            const fed = Int32Array.of(...prompt, ...tokens.slice(0, -1))
            const { best, margin } = mostProbable(graphOf(tied, fed.length), weights, fed)
            expect(margin).toBeGreaterThan(1e-5)
            expect(tokens).toEqual(best.slice(promptTokens - 1))
            expect(tokens).toHaveLength(outputTokens)
            for (const token of tokens) different.add(token)
            compared += tokens.length
          }
        }
      }
    }
    expect(compared).toBe(2 * 3 * places.length * (6 + 7 + 8 + 9))
    expect(different.size).toBeGreaterThan(8)
  })

  it("takes prompts from the text held out, and tells tokens as its characters", async () => {
    const trained = await saved(weightsOf(false, 1))
    expect(textOf(trained, trained.text)).toHaveLength(105)
    for (let id = 0; id < 20; id++)
      expect(textOf(trained, trained.text)).toContain(textOf(trained, trained.prompt(id, 9, 4)))
    expect(textOf(trained, [0, 10, 11])).toBe("ak\uFFFD")
  })

  it("refuses what does not fit, by name", async () => {
    const weights = weightsOf(false, 1)
    const refusal = async (weights: SavedWeights, plan: ServingPlan) =>
      Effect.runPromise(Effect.flip(trainedServing(plan, 0, await saved(weights), "scenario.yaml")))
    const plan = planOf(false)
    for (const [field, value] of [
      ["layers", 3],
      ["width", 32],
      ["heads", 8],
      ["kvHeads", 4],
      ["ffnWidth", 25],
      ["vocabulary", 12],
      ["tied", true]
    ] as const) {
      const model = { ...plan.model, [field]: value }
      expect(await refusal(weights, { ...plan, model })).toMatchObject({
        file: "scenario.yaml",
        field: `model.${field}`,
        value: String(value)
      })
    }
    expect(await refusal({ ...weights, model: "gpt2" }, plan)).toMatchObject({ field: "metadata model" })
    const without = { ...weights, parameters: weights.parameters.slice(1) }
    expect(await refusal(without, plan)).toMatchObject({ field: "model.embed_tokens.weight" })
    const requests = [{ id: 0, arrivalSeconds: 0, promptTokens: 106, outputTokens: 1 }]
    expect(await refusal(weights, { ...plan, requests })).toMatchObject({ field: "requests" })
    const other = join(folder, "other.txt")
    writeFileSync(other, "xyz")
    const unknown = loadTrained(join(folder, "weights.arrow"), other)
    expect(await Effect.runPromise(Effect.flip(unknown))).toMatchObject({ file: other })
    const missing = loadTrained(join(folder, "none.arrow"), text)
    expect(await Effect.runPromise(Effect.flip(missing))).toMatchObject({ field: "file" })
  })
})
