// What is computed again costs time, the host's too, and what cannot be counted is refused by its field.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { metricOf } from "../../scenarios/result.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const ran = (file: string, ...sets: ReadonlyArray<string>) => {
  const path = fileURLToPath(new URL(`../../scenarios/${file}`, import.meta.url))
  return Effect.runPromise(
    Effect.result(
      Effect.flatMap(loadScenario(path, sets), (scenario) =>
        Effect.map(runScenario(scenario, path, { loader: new Loader() }), ({ result }) => result)
      )
    )
  )
}

const refusal = async (...args: Parameters<typeof ran>) => {
  const result = await ran(...args)
  return Result.isFailure(result) ? String(result.failure) : "ran"
}

describe("activations", () => {
  it.each(["none", "eager"])("that are computed again take longer, with host %s", async (host) => {
    const seconds: Array<number> = []
    for (const recompute of ["none", "attention", "block"]) {
      const result = await ran(
        "gpt2-described.yaml",
        "algorithm=ddp",
        "world={ranks: 1}",
        "steps=1",
        `host=${host}`,
        `activations={by: eager, recompute: ${recompute}}`
      )
      seconds.push(metricOf(Result.getOrThrow(result), "stepSeconds"))
    }
    expect(seconds[1]).toBeGreaterThan(seconds[0]!)
    expect(seconds[2]).toBeGreaterThan(seconds[1]!)
  })

  it("of a profile are not told apart by what is attention", async () => {
    const file = "measured/sharded-h100.yaml"
    expect(await refusal(file, "activations.recompute=attention")).toContain("activations.recompute")
    expect(await refusal(file, "activations.recompute=block")).toBe("ran")
  })

  it("of sizes that do not divide are refused by their field", async () => {
    expect(await refusal("measured/sharded-h100.yaml", "activations.of.llama.heads=31")).toContain(
      "activations.of.llama.heads"
    )
  })

  it("of an architecture are its sizes alone: a measured step of it says nothing of memory", async () => {
    expect(
      await refusal("measured/sharded-h100.yaml", "activations.of.measured={stepSeconds: 1s}")
    ).toContain("activations.of")
  })
})
