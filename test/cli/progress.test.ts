// What whoever waits is told where standard error is no terminal.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { patientProgress } from "../../scenarios/cli/progress.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { begin, folder, smallStudy } from "./launch.ts"

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
  ["expert-offload.yaml", ["workload.decodeTokens=600", "model.layers=6"], 601]
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

it("a study of a million points says how far it has read them, and is ended by Ctrl-C meanwhile", async () => {
  const numbers = (unit: string) => Array.from({ length: 1000 }, (_, i) => `${i + 1}${unit}`).join(", ")
  const axes = `seed: [${numbers("")}], world.links.inter.bandwidth: [${numbers("Mbit/s")}]`
  const { child, ended } = begin("study", smallStudy(folder(), axes))
  const told = await new Promise<string>((resolve) => {
    child.stderr!.once("data", (text) => resolve(String(text)))
    void ended.then(({ stderr }) => resolve(stderr))
  })
  expect(told).toMatch(/^sim: reading points: \d+ of 1000000 in 1\d s, about [\d:]+ (?:s|min) left\n$/u)
  const signalledAt = performance.now()
  child.kill("SIGINT")
  expect(await ended).toEqual({ status: 130, stdout: "", stderr: told })
  expect(performance.now() - signalledAt).toBeLessThan(5000)
})
