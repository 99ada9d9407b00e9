// What one study point costs as ranks grow: the time to resolve, plan and simulate GPT-2 under DDP, one process, medians.
// Interchangeable ranks are simulated once; with jitter no two are alike and every rank is simulated.
//   node bench/ranks.ts [runs]
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { Loader } from "../scenarios/load.ts"
import { runScenario } from "../sim/run.ts"
import { loadScenario } from "../scenarios/scenario-file.ts"
import { median } from "../core/median.ts"
import { wholeNumber } from "./numbers.ts"

const runs = wholeNumber("runs", process.argv[2] ?? "5")
const file = fileURLToPath(new URL("../scenarios/geo-gpt2.yaml", import.meta.url))
const loader = new Loader()

const point = async (
  overrides: ReadonlyArray<string>
): Promise<{ seconds: number; simulated: number; ops: number }> => {
  const times: Array<number> = []
  let simulated = 0
  let ops = 0
  for (let round = 0; round <= runs; round++) {
    const begin = performance.now()
    const scenario = await Effect.runPromise(loadScenario(file, overrides))
    const { result, simulated: run } = await Effect.runPromise(runScenario(scenario, file, { loader }))
    // The first run compiles and loads the profile.
    if (round > 0) times.push((performance.now() - begin) / 1000)
    simulated = run.ranks.length
    ops = result.ops
  }
  return { seconds: median(times), simulated, ops }
}

console.log("ranks      kind       simulated  seconds  ops stood for")
for (const [kind, extra, sizes] of [
  ["alike", [], [8, 100, 1000, 10_000, 100_000]],
  ["straggler", ["faults=[{straggler: 0, speed: 0.5}]"], [8, 100, 1000, 10_000]],
  ["jitter", ["jitter=0.01"], [8, 32, 128]]
] as const) {
  for (const ranks of sizes) {
    const { seconds, simulated, ops } = await point([
      "algorithm={name: ddp}",
      "sites=1",
      `ranks=${ranks}`,
      "steps=8",
      ...extra
    ])
    console.log(
      `${String(ranks).padEnd(10)} ${kind.padEnd(10)} ${String(simulated).padEnd(10)} ${seconds.toFixed(3).padEnd(8)} ${ops}`
    )
  }
}
