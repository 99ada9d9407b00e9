// What whoever waits is told where standard error is no terminal.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { patientProgress } from "../../scenarios/cli/progress.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const toldOf = (steps: number, secondsEach: number): ReadonlyArray<string> => {
  const told: Array<string> = []
  let seconds = 0
  const progress = patientProgress(
    "steps",
    (line) => told.push(line),
    () => 1000 * seconds
  )
  for (let step = 1; step <= steps; step++) {
    seconds += secondsEach
    progress.update(step, steps)
  }
  progress.end()
  return told
}

it("long work says once what it waits for and how long", () => {
  expect(toldOf(200, 0.75)).toEqual(["steps: 14 of 200 in 11 s, about 2:20 min left"])
})

it("work that is soon done says nothing", () => {
  expect(toldOf(200, 0.05)).toEqual([])
  // After ten seconds no more than thirty are left.
  expect(toldOf(40, 0.9)).toEqual([])
})

it.each([
  ["geo-gpt2.yaml", ["steps=600"], 600],
  ["moe-training.yaml", ["steps=600", "model.layers=1"], 601],
  ["expert-offload.yaml", ["workload.decodeTokens=600"], 601]
])("a run of %s says how many of its steps are done", async (name, set, least) => {
  const file = path.join(import.meta.dirname, "../../scenarios", name)
  const told: Array<number> = []
  await Effect.runPromise(
    Effect.flatMap(loadScenario(file, set), (scenario) =>
      runScenario(scenario, file, {
        loader: new Loader(),
        onSteps: (ended, of) => {
          expect(of).toBeGreaterThanOrEqual(least)
          expect(ended).toBeLessThanOrEqual(of)
          told.push(ended)
        }
      })
    )
  )
  expect(told.length).toBeGreaterThan(0)
  expect(told).toEqual(told.toSorted((a, b) => a - b))
  expect(told.at(-1)).toBeGreaterThan(0)
})
