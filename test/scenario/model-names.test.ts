// Published models by the names that people and hubs give them.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { expect, it } from "vitest"
import { moeModelNames } from "../../core/algorithms/expert-offload/model.ts"
import { namedModels } from "../../scenarios/families/kv-serving/scenario.ts"
import { modelNamed } from "../../scenarios/sections.ts"

const dense = Object.keys(namedModels)
const named = (names: ReadonlyArray<string>, name: string): string | undefined => {
  const found = Schema.decodeUnknownResult(modelNamed(names))(name)
  return Result.isSuccess(found) ? found.success : undefined
}

it.each([
  [dense, "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"],
  [dense, "Meta-Llama-3-70B", "llama-3-70b"],
  [dense, "llama_3.2 1B", "llama-3.2-1b"],
  [dense, "Llama-2-7b-chat-hf", "llama-2-7b"],
  [dense, "Qwen/Qwen3-0.6B-Base", "qwen3-0.6b"],
  [dense, "Qwen3-80B", undefined],
  [moeModelNames, "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"],
  [moeModelNames, "Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"],
  [moeModelNames, "openai/gpt-oss-20b", "gpt-oss-20b"],
  [moeModelNames, "GPT_OSS 120B", "gpt-oss-120b"],
  [moeModelNames, "deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek-v2-lite"],
  [moeModelNames, "meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout"],
  // Generations are told apart: another's name is no spelling of this one's.
  [moeModelNames, "deepseek-ai/DeepSeek-V2", "deepseek-v2"],
  [moeModelNames, "DeepSeek-V2-Chat-0628", "deepseek-v2"],
  [moeModelNames, "deepseek-v3-0324", "deepseek-v3"],
  [moeModelNames, "deepseek-v1", undefined],
  [moeModelNames, "DeepSeek-V2.5", undefined],
  [moeModelNames, "deepseek", undefined],
  [moeModelNames, "", undefined]
])("%j: %s", (names, given, name) => {
  expect(named(names, given)).toBe(name)
})

it("no two models share a name", () => {
  for (const names of [dense, moeModelNames]) for (const name of names) expect(named(names, name)).toBe(name)
})
