// What is not measured of a profiled model in parts, or of what it computes again, is among a result's estimates.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile, small } from "./files.ts"

const profile = `model={profile: ${path.resolve("traces/profiles/gpt2-h200.arrow")}}`
const of = "activations.of={gpt2: {layers: 12, width: 768, heads: 12}}"

const told = async (...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(small)
  const { result } = await Effect.runPromise(
    Effect.flatMap(loadScenario(file, [profile, ...sets]), (scenario) =>
      runScenario(scenario, file, { loader: new Loader() })
    )
  )
  return result.estimates.filter(({ source }) => source === "scaled").map(({ kernel }) => kernel)
}

it.each([
  [[], []],
  [["shard={within: world}"], ["optimizer's step"]],
  // One rank holds all of it: nothing is scaled.
  [["shard={within: node}"], []],
  [["activations={recompute: block}", of], ["blocks computed again"]],
  [["activations={}", of], []]
])("%j", async (sets, expected) => {
  const known = ["optimizer's step", "blocks computed again"]
  expect((await told(...sets)).filter((kernel) => known.includes(kernel))).toEqual(expected)
})
