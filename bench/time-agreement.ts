// How far simulated time is from real time: tiny models trained by every data-parallel algorithm on 2 to 4 ranks of this
// machine, simulated with the costs that the run itself recorded, and with costs recorded in another world.
//   node bench/time-agreement.ts            all three parts, as a table
//   node bench/time-agreement.ts --json     the same for scripts
import * as Effect from "effect/Effect"
import { availableParallelism, loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import { runnableOn, runOnBoth, type Both, type BothOptions } from "../exec/cli/both-machines.ts"
import { leastSecondsOn } from "../exec/cli/emulated-device.ts"
import { Loader } from "../scenarios/load.ts"
import { loadScenario } from "../scenarios/scenario-file.ts"
import { median } from "../core/median.ts"
import { optionsOf } from "./numbers.ts"

const scenario = fileURLToPath(new URL("../scenarios/agree/data-parallel.yaml", import.meta.url))

const algorithms = [
  "s-sgd",
  "ddp",
  "{name: local-sgd, period: 3}",
  "{name: dreamddp, period: 3}",
  "{name: diloco, period: 3}",
  "{name: streaming-diloco, period: 6, fragments: 3, delaySteps: 1}"
]

/** Slow enough that even eight of them are no load for a core; each step of the model takes some 0.1 s on it. */
const device = { name: "emulated", flopsPerSecond: 1e7, memoryBytesPerSecond: 1e8 }

interface Row {
  readonly part: string
  readonly algorithm: string
  readonly world: string
  readonly simulatedSeconds: number
  readonly executedSeconds: number
  readonly timeError: number
  readonly agree: boolean
}

const bothOf = async (sets: ReadonlyArray<string>): Promise<BothOptions<unknown>> =>
  Effect.runPromise(
    Effect.flatMap(loadScenario(scenario, sets), (loaded) => runnableOn(loaded, scenario, new Loader()))
  )

const rowOf = (part: string, algorithm: string, world: string, both: Both<unknown>): Row => ({
  part,
  algorithm: /[\w-]*(?:sgd|ddp|diloco)/u.exec(algorithm)![0],
  world,
  simulatedSeconds: both.simulated.makespanSeconds,
  executedSeconds: both.executed.makespanSeconds,
  timeError: both.agreement.timeError,
  agree: both.agreement.firstDisagreement === undefined
})

const bigger = "model.gpt2={layers: 2, width: 64, heads: 4, vocabulary: 64, context: 64, batch: 4}"
const rows: Array<Row> = []
const { json } = optionsOf({ options: { json: { type: "boolean", default: false } } }).values
const show = (row: Row): void => {
  rows.push(row)
  if (json) return
  const percent = `${row.timeError >= 0 ? "+" : ""}${(100 * row.timeError).toFixed(1)} %`
  console.log(
    `${row.part.padEnd(10)} ${row.algorithm.padEnd(17)} ${row.world.padEnd(22)} ${row.simulatedSeconds.toFixed(3)} s ${row.executedSeconds.toFixed(3)} s ${percent.padStart(8)}${row.agree ? "" : "  DISAGREES"}`
  )
}

for (const algorithm of algorithms) {
  const sets = ["steps=6", `algorithm=${algorithm}`]
  // Own: kernels as fast as the cores are, which all ranks share.
  for (const ranks of [2, 3, 4]) {
    const own = await bothOf([...sets, bigger, `ranks=${ranks}`])
    show(rowOf("own", algorithm, `${ranks} ranks`, await Effect.runPromise(runOnBoth(own))))
  }
  // Emulated: every rank has a slow device of its own, and links are slow.
  const leastSeconds = leastSecondsOn(device)
  for (const ranks of [2, 4]) {
    const options = await bothOf([...sets, `ranks=${ranks}`, "inter.bandwidth=2Mbit/s", "inter.latency=1ms"])
    const both = await Effect.runPromise(runOnBoth({ ...options, leastSeconds }))
    show(rowOf("emulated", algorithm, `${ranks} ranks, 2 Mbit/s`, both))
  }
  // Changed: costs recorded on two ranks with unlimited links predict other worlds.
  const before = await Effect.runPromise(runOnBoth({ ...(await bothOf([...sets, "ranks=2"])), leastSeconds }))
  for (const [ranks, bandwidth] of [
    [2, "1Mbit/s"],
    [4, "5Mbit/s"]
  ] as const) {
    const options = await bothOf([
      ...sets,
      `ranks=${ranks}`,
      `inter.bandwidth=${bandwidth}`,
      "inter.latency=2ms"
    ])
    const both = await Effect.runPromise(runOnBoth({ ...options, leastSeconds, costsFrom: before.recording }))
    show(rowOf("changed", algorithm, `${ranks} ranks, ${bandwidth}`, both))
  }
}

const summary = ["own", "emulated", "changed"].map((part) => {
  const errors = rows.filter((row) => row.part === part).map(({ timeError }) => Math.abs(timeError))
  return { part, runs: errors.length, medianError: median(errors), worstError: Math.max(...errors) }
})
if (json)
  console.log(
    JSON.stringify({ cores: availableParallelism(), load: loadavg()[0], rows, summary }, undefined, 2)
  )
else {
  console.log(`\n${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)} by other work and this`)
  for (const { part, runs, medianError, worstError } of summary)
    console.log(
      `${part.padEnd(10)} ${runs} runs: |time error| ${(100 * medianError).toFixed(1)} % median, ${(100 * worstError).toFixed(1)} % worst`
    )
}
