// Models by name against the parameter counts that their makers publish, and what narrower experts and caches weigh.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import {
  expertBytes,
  layerWeightSpecs,
  leftOutOf,
  moeModelNames,
  moeModels,
  outerWeightSpecs,
  type MoeModel
} from "../../core/algorithms/expert-offload/model.ts"
import { cacheBytes, weightSpecs, type DecoderModel } from "../../core/algorithms/kv-serving/model.ts"
import { elementsOf, type TensorSpec } from "../../core/machine/tensor.ts"
import { headWidthOf } from "../../core/models/decoder-layer.ts"
import { familyOf } from "../../scenarios/families.ts"
import { namedModels } from "../../scenarios/families/kv-serving/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const countOf = (specs: ReadonlyArray<TensorSpec>): number =>
  specs.reduce((sum, { shape }) => sum + elementsOf(shape), 0)

describe("decoders by name", () => {
  // In billions, as the model cards say; Qwen3's norms of queries and keys are not modelled and too small to matter.
  for (const [name, billions] of [
    ["llama-2-7b", 6.74],
    ["llama-3-8b", 8.03],
    ["llama-3-70b", 70.55],
    ["llama-3.1-8b", 8.03],
    ["llama-3.1-70b", 70.55],
    ["llama-3.1-405b", 405.85],
    ["llama-3.2-1b", 1.236],
    ["llama-3.2-3b", 3.213],
    ["llama-3.3-70b", 70.55],
    ["qwen3-0.6b", 0.596],
    ["qwen3-1.7b", 1.72],
    ["qwen3-4b", 4.02],
    ["qwen3-8b", 8.19],
    ["qwen3-14b", 14.77],
    ["qwen3-32b", 32.76]
  ] as const) {
    it(`${name} has ${billions} billion parameters`, () => {
      expect(Math.abs(countOf(weightSpecs(namedModels[name])) / (billions * 1e9) - 1)).toBeLessThan(0.002)
    })
  }

  it("are all held to a count", () => {
    expect(Object.keys(namedModels)).toHaveLength(15)
  })
})

describe("mixtures of experts by name", () => {
  const total = (model: MoeModel): number => {
    const resident = countOf([
      ...Object.values<TensorSpec>(layerWeightSpecs(model, 0)).flatMap((spec) =>
        Array.from({ length: model.layers }, () => spec)
      ),
      ...Object.values<TensorSpec>(outerWeightSpecs(model))
    ])
    const expert = (model.gated ? 3 : 2) * model.width * model.ffnWidth
    return resident + model.layers * model.experts * expert
  }
  // Of models whose every layer is as modelled; DeepSeek's and Llama 4's have shared experts and dense layers beside.
  for (const [name, billions] of [
    ["mixtral-8x7b", 46.7],
    ["mixtral-8x22b", 140.6],
    ["qwen3-30b-a3b", 30.5],
    ["qwen3-235b-a22b", 235.1],
    ["gpt-oss-20b", 20.9],
    ["gpt-oss-120b", 116.8]
  ] as const) {
    it(`${name} has ${billions} billion parameters`, () => {
      expect(Math.abs(total(moeModels[name]) / (billions * 1e9) - 1)).toBeLessThan(0.005)
    })
  }

  it("of others have the routed experts published", () => {
    const routed = (name: keyof typeof moeModels): number => {
      const { layers, experts, width, ffnWidth } = moeModels[name]
      return (3 * layers * experts * width * ffnWidth) / 1e9
    }
    // 58 layers of 256 experts of 44.0 million; 59 of 160 of 23.6; 26 of 64 of 8.65; 48 of 16, and 24 of 128, of 125.8.
    expect(routed("deepseek-v3")).toBeCloseTo(653.9, 1)
    expect(routed("deepseek-v2")).toBeCloseTo(222.7, 1)
    expect(routed("deepseek-v2-lite")).toBeCloseTo(14.4, 1)
    expect(routed("llama-4-scout")).toBeCloseTo(96.6, 1)
    expect(routed("llama-4-maverick")).toBeCloseTo(386.5, 1)
    expect(moeModelNames.length).toBeGreaterThan(14)
  })

  it("of which something is left out say so in every run, and only those", async () => {
    const folder = new URL("../../scenarios/", import.meta.url).pathname
    const facts = { estimates: [], makespanSeconds: 10 }
    const warned: Array<string> = []
    for (const name of moeModelNames) {
      const scenario = await Effect.runPromise(
        loadScenario(`${folder}expert-offload.yaml`, [`model.like=${name}`, "cache={slotsPerLayer: 4}"])
      )
      if (
        familyOf(scenario)
          .ignored(scenario, facts)
          .some((line) => line.startsWith(`model ${name}: `))
      )
        warned.push(name)
    }
    expect(warned).toEqual(Object.keys(leftOutOf))
    // Published totals, in billions: what is left out of these is no rounding.
    for (const [name, billions] of [
      ["deepseek-v2", 236],
      ["deepseek-v3", 671],
      ["llama-4-scout", 109],
      ["llama-4-maverick", 400]
    ] as const) {
      expect(Math.abs(total(moeModels[name]) / (billions * 1e9) - 1)).toBeGreaterThan(0.01)
      expect(warned).toContain(name)
    }
  })

  it("weigh what their experts' dtype says, scales included", () => {
    expect(expertBytes(moeModels["gpt-oss-20b"])).toBe((3 * 2880 * 2880 * 4.25) / 8)
    expect(expertBytes(moeModels["deepseek-v3"])).toBe(3 * 7168 * 2048)
    expect(expertBytes({ ...moeModels["mixtral-8x7b"], expertDtype: "float4" })).toBe(
      expertBytes(moeModels["mixtral-8x7b"]) / 4
    )
    expect(headWidthOf(moeModels["gpt-oss-20b"])).toBe(64)
  })
})

describe("models some of whose layers attend to a window", () => {
  // Contexts as the configurations have them: sliding_window of gpt-oss, attention_chunk_size of Llama 4.
  it.each([
    ["gpt-oss-20b", 128],
    ["gpt-oss-120b", 128],
    ["llama-4-scout", 8192],
    ["llama-4-maverick", 8192]
  ])("say so beyond it: %s beyond %d tokens", async (name, tokens) => {
    const file = new URL("../../scenarios/expert-offload.yaml", import.meta.url).pathname
    const told = async (promptTokens: number) => {
      const set = [`model.like=${name}`, `workload={promptTokens: ${promptTokens}, decodeTokens: 28}`]
      const scenario = await Effect.runPromise(loadScenario(file, set))
      const facts = { estimates: [], makespanSeconds: 10 }
      return familyOf(scenario)
        .ignored(scenario, facts)
        .filter((line) => line.includes("are taken to attend to all"))
    }
    expect(await told(tokens - 28)).toEqual([])
    expect(await told(tokens - 27)).toEqual([
      expect.stringContaining(
        `attend to ${tokens} tokens at most, and are taken to attend to all ${tokens + 1}`
      )
    ])
  })
})

describe("narrower weights and caches", () => {
  const folder = new URL("../../scenarios/", import.meta.url).pathname
  const run = async (file: string, ...set: ReadonlyArray<string>) => {
    const path = `${folder}${file}`
    const scenario = await Effect.runPromise(loadScenario(path, set))
    const { result } = await Effect.runPromise(runScenario(scenario, path, { loader: new Loader() }))
    return result as unknown as Readonly<Record<string, number>>
  }

  it("of experts load and compute in less time, with heads wider than the model's share", async () => {
    const common = [
      "model={like: gpt-oss-20b, layers: 4}",
      "cache={slotsPerLayer: 8}",
      "routing={preset: uniform}"
    ]
    const small = ["workload={batch: 1, promptTokens: 4, decodeTokens: 6, warmupSteps: 1}", "algorithm=lru"]
    const narrow = await run("expert-offload.yaml", ...common, ...small)
    const wide = await run("expert-offload.yaml", ...common, ...small, "model.expertDtype=bfloat16")
    expect(narrow["loads"]).toBe(wide["loads"])
    const ratio = wide["loadedBytesPerStep"]! / narrow["loadedBytesPerStep"]!
    expect(ratio).toBeCloseTo(16 / 4.25, 6)
    expect(narrow["decodeStepSeconds"]).toBeLessThan(wide["decodeStepSeconds"]!)
  })

  it("of keys and values take less room, and attention less time", async () => {
    const model: DecoderModel = namedModels["qwen3-8b"]
    expect(cacheBytes({ ...model, cacheDtype: "int8" }, [100])).toBe(cacheBytes(model, [100]) / 2)
    const common = [
      "model=qwen3-8b",
      "algorithm=full",
      "requests={count: 2, prompt: 16384, output: 4}",
      "transfer={to: none}"
    ]
    const wide = await run("kv-serving.yaml", ...common)
    const narrow = await run("kv-serving.yaml", ...common, "cacheDtype=float4")
    expect(narrow["makespanSeconds"]).toBeLessThan(wide["makespanSeconds"]!)
  })

  it("of heads that ranks share are copied to each", async () => {
    const shared = ["model.heads=32", "algorithm=fsmoe", "steps=1"]
    const many = await run("moe-training.yaml", ...shared, "model.kvHeads=32")
    const few = await run("moe-training.yaml", ...shared, "model.kvHeads=2")
    expect(few["stepSeconds"]).toBeGreaterThan(0)
    expect(few["stepSeconds"]).toBeLessThan(many["stepSeconds"]!)
  })
})
