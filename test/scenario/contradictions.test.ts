// Fields that are each gone by but together of no program, and a verdict on memory that not all is counted in: both are told.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { printRun } from "../../sim/cli/print-run.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile, small } from "./files.ts"

const llama =
  "model={llama: {layers: 2, width: 16, heads: 2, ffnWidth: 32, vocabulary: 64, context: 16, batch: 1}}"
const profile = `model={profile: ${path.resolve("traces/profiles/gpt2-h200.arrow")}}`
const gpt2 = "activations.of={gpt2: {layers: 12, width: 768, heads: 12}}"
const wide = "shard={within: site}"
const narrow = "shard={within: site, parameterDtype: bfloat16}"

const about = (scenario: RegExp, ...sets: ReadonlyArray<string>): ReadonlyArray<string> => {
  const decoded = Effect.runSync(loadScenario(scenarioFile(small), sets))
  return familyOf(decoded)
    .ignored(decoded, { estimates: [], makespanSeconds: 10 })
    .filter((warning) => scenario.test(warning))
}

describe("kernels, activations and dtypes of parts", () => {
  const twoPrograms = /not of one program/u
  it.each([
    // Memory of one, times of another; where nobody says whose memory, it is the kernels'.
    [[llama, "activations={recompute: block}"], []],
    [[llama, "kernels=eager", "activations={}"], []],
    [[llama, "activations={by: autocast}"], [/^activations\.by "autocast" and kernels "fused"/u]],
    [
      [llama, "kernels=eager", "activations={by: fused, recompute: block}"],
      [/^activations\.by "fused" and kernels "eager"/u]
    ],
    [[llama, "kernels=eager", "activations={by: eager}"], []],
    [[llama, "activations={by: fused, recompute: block}"], []],
    // Sixteen bits throughout, but for what is gathered; casts of what is narrow already.
    [[llama, "kernels=eager", wide], [/^shard\.parameterDtype "float32" and kernels "eager"/u]],
    [
      [llama, "kernels=eager", "activations={by: eager}", wide],
      [/^shard\.parameterDtype "float32" and kernels and activations\.by "eager"/u]
    ],
    [[llama, "kernels=eager", narrow], []],
    [[llama, "kernels=autocast", narrow], [/^shard\.parameterDtype "bfloat16" and kernels "autocast"/u]],
    [[llama, "kernels=autocast", wide], []],
    [[llama, wide], []],
    [[llama, narrow], []],
    [
      [profile, wide, "activations={by: eager}", gpt2],
      [/^shard\.parameterDtype "float32" and activations\.by "eager"/u]
    ],
    [
      [profile, narrow, "activations={}", gpt2],
      [/^shard\.parameterDtype "bfloat16" and activations\.by "autocast"/u]
    ],
    // A profile's kernels are as they were recorded.
    [[profile, "activations={by: eager}", gpt2], []]
  ])("of %j", (sets, expected) => {
    expect(about(twoPrograms, ...sets)).toEqual(expected.map((one) => expect.stringMatching(one)))
  })
})

describe("a limit of memory", () => {
  const limit = "memory.device=80GB"
  const told = async (...sets: ReadonlyArray<string>) => {
    const file = scenarioFile(small)
    const { result } = await Effect.runPromise(
      Effect.flatMap(loadScenario(file, sets), (scenario) =>
        runScenario(scenario, file, { loader: new Loader() })
      )
    )
    const memory = result.details!["memory"] as { readonly parts: Readonly<Record<string, number>> }
    return { parts: Object.keys(memory.parts), text: printRun(result) }
  }

  it.each([
    [[limit], true],
    [[profile, limit], true],
    [[profile, limit, "activations={}", gpt2], false],
    [[llama, limit], false],
    [[profile], false]
  ])("that is held against what is counted says what is not: %j", (sets, expected) => {
    const warnings = about(/^memory\.device is held against parameters, gradients/u, ...sets)
    expect(warnings).toHaveLength(expected ? 1 : 0)
  })

  it("is kept without activations where nothing says them, and the result says so", async () => {
    const without = await told(profile, limit)
    expect(without.parts).not.toContain("activations")
    expect(without.text).toMatch(/^memory {2}.* of 80\.0 GB: fits, activations not counted$/mu)
    const withThem = await told(profile, limit, "activations={}", gpt2)
    expect(withThem.parts).toContain("activations")
    expect(withThem.text).toMatch(/^memory {2}.* of 80\.0 GB: fits$/mu)
  })
})
