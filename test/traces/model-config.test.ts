// Configurations as Hugging Face has them: parameters counted against those that are reported of the models (in billions, as commonly told;
// nothing was downloaded to check it), and what a scenario is told to say.
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { diagnose } from "../../traces/doctor.ts"
import { readModelConfig, type ModelReading } from "../../traces/model-config.ts"
import { knownTypes } from "../../traces/model-parts.ts"

const folder = fs.mkdtempSync(path.join(tmpdir(), "model-config-"))
afterAll(() => {
  fs.rmSync(folder, { recursive: true })
})

type Config = Readonly<Record<string, unknown>>

/** Sizes every configuration has, in the order: width, feed-forward, layers, heads, heads of keys, vocabulary. */
const decoder = (
  model_type: string,
  [
    hidden_size,
    intermediate_size,
    num_hidden_layers,
    num_attention_heads,
    num_key_value_heads,
    vocab_size
  ]: ReadonlyArray<number>,
  more: Config = {}
): Config => ({
  model_type,
  hidden_size,
  intermediate_size,
  num_hidden_layers,
  num_attention_heads,
  num_key_value_heads,
  vocab_size,
  tie_word_embeddings: false,
  ...more
})

const latent = { kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 }
const scout = { head_dim: 128, intermediate_size_mlp: 16384, num_experts_per_tok: 1 }
const gptOss = {
  head_dim: 64,
  num_experts_per_tok: 4,
  sliding_window: 128,
  quantization_config: { quant_method: "mxfp4" }
}

const reported: ReadonlyArray<readonly [name: string, billions: number, config: Config]> = [
  ["Llama-3.1-8B", 8.03, decoder("llama", [4096, 14336, 32, 32, 8, 128256])],
  ["Mistral-7B", 7.242, decoder("mistral", [4096, 14336, 32, 32, 8, 32000])],
  ["Qwen2.5-7B", 7.616, decoder("qwen2", [3584, 18944, 28, 28, 4, 152064])],
  ["Qwen3-8B", 8.191, decoder("qwen3", [4096, 12288, 36, 32, 8, 151936], { head_dim: 128 })],
  [
    "Granite-3.1-8B",
    8.171,
    decoder("granite", [4096, 12800, 40, 32, 8, 49155], { tie_word_embeddings: true })
  ],
  ["Phi-3-mini", 3.821, decoder("phi3", [3072, 8192, 32, 32, 32, 32064])],
  [
    "Gemma-3-12B, its text",
    11.766,
    {
      model_type: "gemma3",
      text_config: {
        ...decoder("gemma3_text", [3840, 15360, 48, 16, 8, 262208]),
        head_dim: 256,
        tie_word_embeddings: undefined
      }
    }
  ],
  [
    "Mixtral-8x7B",
    46.703,
    decoder("mixtral", [4096, 14336, 32, 32, 8, 32000], { num_local_experts: 8, num_experts_per_tok: 2 })
  ],
  [
    "Mixtral-8x22B",
    140.62,
    decoder("mixtral", [6144, 16384, 56, 48, 8, 32768], { num_local_experts: 8, num_experts_per_tok: 2 })
  ],
  [
    "Qwen3-30B-A3B",
    30.532,
    decoder("qwen3_moe", [2048, 6144, 48, 32, 4, 151936], {
      head_dim: 128,
      moe_intermediate_size: 768,
      num_experts: 128,
      num_experts_per_tok: 8,
      mlp_only_layers: [],
      decoder_sparse_step: 1
    })
  ],
  [
    "Qwen1.5-MoE-A2.7B",
    14.316,
    decoder("qwen2_moe", [2048, 5632, 24, 16, 16, 151936], {
      moe_intermediate_size: 1408,
      num_experts: 60,
      num_experts_per_tok: 4,
      shared_expert_intermediate_size: 5632,
      sliding_window: 32768,
      use_sliding_window: false
    })
  ],
  [
    "OLMoE-1B-7B",
    6.919,
    decoder("olmoe", [2048, 1024, 16, 16, 16, 50304], { num_experts: 64, num_experts_per_tok: 8 })
  ],
  [
    "Phi-3.5-MoE",
    41.873,
    decoder("phimoe", [4096, 6400, 32, 32, 8, 32064], { num_local_experts: 16, num_experts_per_tok: 2 })
  ],
  [
    "Granite-3.1-3B-A800M",
    3.299,
    decoder("granitemoe", [1536, 512, 32, 24, 8, 49155], {
      num_local_experts: 40,
      num_experts_per_tok: 8,
      tie_word_embeddings: true
    })
  ],
  [
    "GLM-4.5-Air",
    106.852,
    decoder("glm4_moe", [4096, 10944, 46, 96, 8, 151552], {
      head_dim: 128,
      moe_intermediate_size: 1408,
      n_routed_experts: 128,
      n_shared_experts: 1,
      num_experts_per_tok: 8,
      first_k_dense_replace: 1,
      num_nextn_predict_layers: 1,
      use_qk_norm: false
    })
  ],
  [
    "DeepSeek-V2-Lite",
    15.706,
    decoder("deepseek_v2", [2048, 10944, 27, 16, 16, 102400], {
      ...latent,
      q_lora_rank: null,
      moe_intermediate_size: 1408,
      n_routed_experts: 64,
      n_shared_experts: 2,
      num_experts_per_tok: 6,
      first_k_dense_replace: 1,
      moe_layer_freq: 1
    })
  ],
  [
    "DeepSeek-V3",
    671.026,
    decoder("deepseek_v3", [7168, 18432, 61, 128, 128, 129280], {
      ...latent,
      q_lora_rank: 1536,
      moe_intermediate_size: 2048,
      n_routed_experts: 256,
      n_shared_experts: 1,
      num_experts_per_tok: 8,
      first_k_dense_replace: 3,
      quantization_config: { quant_method: "fp8" }
    })
  ],
  [
    "Kimi-K2",
    1026.4,
    decoder("kimi_k2", [7168, 18432, 61, 64, 64, 163840], {
      ...latent,
      q_lora_rank: 1536,
      moe_intermediate_size: 2048,
      n_routed_experts: 384,
      n_shared_experts: 1,
      num_experts_per_tok: 8,
      first_k_dense_replace: 1
    })
  ],
  [
    "gpt-oss-20b",
    20.915,
    decoder("gpt_oss", [2880, 2880, 24, 64, 8, 201088], { ...gptOss, num_local_experts: 32 })
  ],
  [
    "gpt-oss-120b",
    116.829,
    decoder("gpt_oss", [2880, 2880, 36, 64, 8, 201088], { ...gptOss, num_local_experts: 128 })
  ],
  [
    "Llama-4-Scout, its text",
    107.77,
    {
      model_type: "llama4",
      text_config: decoder("llama4_text", [5120, 8192, 48, 40, 8, 202048], {
        ...scout,
        num_local_experts: 16,
        interleave_moe_layer_step: 1
      })
    }
  ],
  [
    "Llama-4-Maverick, its text",
    400.71,
    {
      model_type: "llama4",
      text_config: decoder("llama4_text", [5120, 8192, 48, 40, 8, 202048], {
        ...scout,
        num_local_experts: 128,
        interleave_moe_layer_step: 2
      })
    }
  ],
  [
    "GPT-2",
    0.12444,
    {
      model_type: "gpt2",
      n_embd: 768,
      n_layer: 12,
      n_head: 12,
      n_positions: 1024,
      vocab_size: 50257,
      n_inner: null
    }
  ]
]

const read = (config: Config): ModelReading => {
  const found = readModelConfig(JSON.stringify(config))
  if (found === undefined || "missing" in found) throw new Error(JSON.stringify(found))
  return found
}

describe("a model's configuration", () => {
  it.each(reported)("of %s comes to the %d billion parameters that are reported", (_, billions, config) => {
    expect(Math.abs(read(config).whole / (billions * 1e9) - 1)).toBeLessThan(0.0005)
  })

  it.each(reported)("of %s is told in words that a scenario takes", async (_, __, config) => {
    const { uses } = read(config)
    for (const { how } of uses) {
      const model = /model: (\{.*\})$/u.exec(how)![1]!
      const task = /^task: ([\w-]+), /u.exec(how)?.[1] ?? "data-parallel"
      const file = path.join(folder, `${task}.yaml`)
      const rest = {
        "data-parallel":
          "algorithm: ddp\nworld: {ranks: 2}\ndevice: {name: d, flops: 1TFLOP/s, memoryBandwidth: 1TB/s}",
        "expert-offload": "algorithm: lru\nrouting: {preset: uniform}\ncache: {slotsPerLayer: 4}",
        "kv-serving": "algorithm: full\nrequests: {count: 1, prompt: 8, output: 8}"
      }[task]!
      const named = task === "data-parallel" ? "" : `task: ${task}\n`
      fs.writeFileSync(file, `${named}name: read\nmodel: ${model}\n${rest}\n`)
      await Effect.runPromise(loadScenario(file, []))
    }
    expect(uses.length).toBeGreaterThan(0)
  })

  it("says what is left out, each part with its parameters, and what weighs nothing", () => {
    const glm = read(reported.find(([name]) => name === "GLM-4.5-Air")![2])
    expect(glm.warnings.join("\n")).toContain(
      "experts that every token has: 0.7786 billion parameters are left out"
    )
    expect(glm.warnings.join("\n")).toContain("layers without experts, 1 of 46")
    expect(glm.warnings.join("\n")).toContain("num_nextn_predict_layers")
    const oss = read({
      ...reported.find(([name]) => name === "gpt-oss-20b")![2],
      layer_types: ["sliding_attention", "full_attention"]
    })
    expect(oss.warnings.join("\n")).toContain(
      "a window of 128 tokens in 1 of 2 layers is taken for attention over all"
    )
    expect(oss.uses[0]!.how).toContain("expertDtype: mxfp4")
    const v3 = read(reported.find(([name]) => name === "DeepSeek-V3")![2])
    expect(v3.contents[1]).toBe(
      "671.0 billion parameters; a scenario of these sizes has 683.1 billion parameters"
    )
    expect(v3.warnings.join("\n")).toContain("17.24 billion parameters too many")
    // What is kept as published says nothing of it.
    expect(read(reported[0]![2]).warnings).toEqual([])
  })

  it("says of an architecture that is not known here that it is not", () => {
    const next = read(
      decoder("qwen3_next", [2048, 5120, 48, 16, 2, 151936], {
        head_dim: 256,
        moe_intermediate_size: 512,
        num_experts: 512,
        num_experts_per_tok: 10,
        shared_expert_intermediate_size: 512,
        full_attention_interval: 4
      })
    )
    const told = next.warnings.join("\n")
    expect(told).toContain("qwen3_next is no architecture that is known here")
    expect(told).toContain("layers without attention")
    expect(told).toContain("experts that every token has")
    expect(knownTypes.has("qwen3_next")).toBe(false)
    expect(next.contents[1]).toBe(
      "a scenario of these sizes has 78.89 billion parameters; how many the model has is not known here"
    )
    const bert = read(decoder("bert", [768, 3072, 12, 12, 12, 30522], { architectures: ["BertForMaskedLM"] }))
    expect(bert.warnings.join("\n")).toContain("BertForMaskedLM writes no text token by token")
  })

  it("names what it lacks, or has a list of unlike numbers for", () => {
    const [, , llama] = reported[0]!
    expect(readModelConfig(JSON.stringify({ ...llama, vocab_size: undefined }))).toEqual({
      missing: ["vocab_size"]
    })
    expect(readModelConfig(JSON.stringify({ ...llama, num_attention_heads: [8, 16] }))).toEqual({
      missing: ["num_attention_heads"]
    })
    // No whole number of columns a head.
    expect(readModelConfig(JSON.stringify({ ...llama, num_attention_heads: 33 }))).toEqual({
      missing: ["head_dim"]
    })
    // A mixture whose layers have unlike numbers of experts is no dense model.
    expect(
      readModelConfig(JSON.stringify({ ...llama, num_experts: [8, 16], num_experts_per_tok: 2 }))
    ).toEqual({
      missing: ["num_experts"]
    })
    expect(readModelConfig(JSON.stringify({ ...llama, num_attention_heads: [32, 32] }))).toMatchObject({
      type: "llama"
    })
    expect(readModelConfig("{")).toBeUndefined()
  })

  it("counts layers without experts however that is said", () => {
    const mixture = (more: Config) =>
      read(
        decoder("qwen3_moe", [64, 128, 6, 4, 4, 100], {
          num_experts: 4,
          num_experts_per_tok: 2,
          moe_intermediate_size: 32,
          ...more
        })
      )
    const dense = (more: Config) =>
      /layers without experts, (\d+) of 6/u.exec(mixture(more).warnings.join("\n"))?.[1]
    expect(dense({})).toBeUndefined()
    expect(dense({ first_k_dense_replace: 2 })).toBe("2")
    expect(dense({ mlp_only_layers: [0, 5] })).toBe("2")
    expect(dense({ decoder_sparse_step: 2 })).toBe("3")
    expect(dense({ moe_layer_freq: 2, first_k_dense_replace: 1 })).toBe("4")
    expect(dense({ moe_layer_freq: [0, 1, 1, 1, 1, 1] })).toBe("1")
    expect(dense({ mlp_layer_types: ["dense", "dense", "sparse", "sparse", "sparse", "sparse"] })).toBe("2")
  })

  it("is told by the doctor", async () => {
    const file = path.join(folder, "config.json")
    fs.writeFileSync(file, JSON.stringify(reported[0]![2]))
    expect(await Effect.runPromise(diagnose(file))).toMatchObject({
      kind: "model-config",
      readable: true,
      title: "a model's configuration, as Hugging Face has it (llama)",
      contents: ["32 layers of width 4096, 32 heads of 128 over 8", "8.030 billion parameters"]
    })
    fs.writeFileSync(file, '{"model_type": "llama", "hidden_size": 4096}')
    const lacking = await Effect.runPromise(diagnose(file))
    expect(lacking.readable).toBe(false)
    expect(lacking.missing[0]!.how).toContain(
      "num_hidden_layers, num_attention_heads, vocab_size, intermediate_size"
    )
  })
})
