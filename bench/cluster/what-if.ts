// What if the links were slower? A model is profiled once, at full speed; the simulator says what a step takes on links of other
// bandwidths under each algorithm; then ranks in network namespaces really train over such links. Needs root and iproute2.
//   node bench/cluster/what-if.ts [--ranks 2,4] [--mbit 50,200,1000] [--json]
// Set before anything was run: the median error of a step at most 3 %, the worst 10 %, and the fastest algorithm foretold.
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"

const algorithms = {
  ddp: "ddp",
  "local-sgd": "{name: local-sgd, period: 3}",
  dreamddp: "{name: dreamddp, period: 3}",
  diloco: "{name: diloco, period: 3}"
}
/** Whole periods. */
const warmupSteps = 3
const steps = 9
/** Of a frame of 9014 bytes on these links, Ethernet's, IP's and TCP's headers are 66. */
const payloadShare = 8948 / 9014

const { values } = parseArgs({
  options: {
    ranks: { type: "string", default: "2,4" },
    mbit: { type: "string", default: "50,200,1000" },
    json: { type: "boolean", default: false }
  }
})
const numbers = (text: string): ReadonlyArray<number> => text.split(",").map(Number)
const root = fileURLToPath(new URL("../..", import.meta.url))
const file = fileURLToPath(new URL("what-if.yaml", import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), "what-if-"))

interface Row {
  readonly ranks: number
  readonly mbit: number
  readonly algorithm: string
  readonly computeShare: number
  readonly predictedSeconds: number
  readonly measuredSeconds: number
}

const reason = whyNoCluster()
if (reason !== undefined) {
  console.error(`no network namespaces here: ${reason}`)
  process.exit(2)
}

const setsOf = (ranks: number, mbit: number, algorithm: string): ReadonlyArray<string> => [
  `world.ranks=${ranks}`,
  `inter.bandwidth=${Math.round(mbit * 1e6 * payloadShare)}bit/s`,
  `algorithm=${algorithm}`
]

const predict = async (profile: string, sets: ReadonlyArray<string>) => {
  const more = [`model={profile: ${profile}}`, `steps=${steps - warmupSteps}`]
  const scenario = await Effect.runPromise(loadScenario(file, [...sets, ...more]))
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  return result as unknown as { readonly stepSeconds: number; readonly computeSeconds: number }
}

/** Really trains, run after run; `before` sets the links of each. */
const measure = async (
  ranks: number,
  profile: string,
  points: ReadonlyArray<{ readonly mbit: number; readonly sets: ReadonlyArray<string> }>
) => {
  const full = { up: 1.25e9, down: 1.25e9 }
  const cluster = new Cluster(Array.from({ length: ranks }, () => full))
  try {
    const port = await freePort()
    const secret = freshSecret()
    const asked = JSON.stringify({ file, profile, warmupSteps, steps, runs: points.map(({ sets }) => sets) })
    const children = Array.from({ length: ranks }, (_, rank) =>
      cluster.spawn(rank, [process.execPath, path.join(root, "bench/cluster/what-if-rank.ts"), asked], {
        cwd: root,
        env: {
          ...process.env,
          RANK: String(rank),
          WORLD_SIZE: String(ranks),
          MASTER_ADDR: cluster.addressOf(0),
          MASTER_PORT: String(port),
          TANDEM_SECRET: secret
        },
        stdio: [rank === 0 ? "pipe" : "ignore", rank === 0 ? "pipe" : "ignore", "inherit"]
      })
    )
    const [first] = children
    const measured: Array<number> = []
    for await (const line of createInterface({ input: first!.stdout! })) {
      const said = JSON.parse(line) as { readonly stepSeconds?: number }
      if (said.stepSeconds !== undefined) {
        measured.push(said.stepSeconds)
        continue
      }
      const rate = (points[measured.length]!.mbit * 1e6) / 8
      for (let rank = 0; rank < ranks; rank++) cluster.setRates(rank, { up: rate, down: rate })
      first!.stdin!.write("go\n")
    }
    return measured
  } finally {
    cluster.close()
  }
}

const rows: Array<Row> = []
try {
  for (const ranks of numbers(values.ranks)) {
    const profile = path.join(folder, `profile-${ranks}.arrow`)
    const { status, stderr } = spawnSync(
      process.execPath,
      [
        path.join(root, "bin/exec.js"),
        "profile",
        file,
        "--set",
        `world.ranks=${ranks}`,
        "--processes",
        String(ranks),
        "--emulate-device",
        "-o",
        profile
      ],
      { cwd: root, encoding: "utf8" }
    )
    if (status !== 0) throw new Error(stderr)
    const points = numbers(values.mbit).flatMap((mbit) =>
      Object.entries(algorithms).map(([name, algorithm]) => ({
        name,
        mbit,
        sets: setsOf(ranks, mbit, algorithm)
      }))
    )
    // Foretold before anything is run.
    const predictions: Array<Awaited<ReturnType<typeof predict>>> = []
    for (const { sets } of points) predictions.push(await predict(profile, sets))
    const measured = await measure(ranks, profile, points)
    points.forEach(({ name, mbit }, i) => {
      const { stepSeconds, computeSeconds } = predictions[i]!
      const computeShare = computeSeconds / stepSeconds
      rows.push({
        ranks,
        mbit,
        algorithm: name,
        computeShare,
        predictedSeconds: stepSeconds,
        measuredSeconds: measured[i]!
      })
    })
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

const errorOf = ({ predictedSeconds, measuredSeconds }: Row): number => predictedSeconds / measuredSeconds - 1
const errors = rows.map((row) => Math.abs(errorOf(row))).toSorted((a, b) => a - b)
const medianError = errors[errors.length >> 1]!
const worstError = errors.at(-1)!
/** Points at which the algorithm foretold to be fastest was not. */
const misranked = [...Map.groupBy(rows, ({ ranks, mbit }) => `${ranks} ranks at ${mbit} Mbit/s`)].filter(
  ([, at]) => {
    const least = (of: (row: Row) => number): string => at.toSorted((a, b) => of(a) - of(b))[0]!.algorithm
    return (
      least(({ predictedSeconds }) => predictedSeconds) !== least(({ measuredSeconds }) => measuredSeconds)
    )
  }
)
const summary = {
  medianError,
  worstError,
  misranked: misranked.map(([point]) => point),
  cores: availableParallelism(),
  load: loadavg()[0]
}
if (values.json) console.log(JSON.stringify({ rows, ...summary }, undefined, 2))
else {
  console.log("ranks  Mbit/s  algorithm   compute  predicted  measured   error")
  for (const row of rows) {
    const { ranks, mbit, algorithm, computeShare, predictedSeconds, measuredSeconds } = row
    const share = `${(100 * computeShare).toFixed(0)} %`
    const error = errorOf(row)
    console.log(
      `${String(ranks).padStart(5)}  ${String(mbit).padStart(6)}  ${algorithm.padEnd(10)} ${share.padStart(8)}  ${predictedSeconds.toFixed(3).padStart(7)} s  ${measuredSeconds.toFixed(3).padStart(6)} s  ${error >= 0 ? "+" : ""}${(100 * error).toFixed(1)} %`
    )
  }
  console.log(
    `median ${(100 * medianError).toFixed(1)} %, worst ${(100 * worstError).toFixed(1)} %; ` +
      (misranked.length === 0
        ? "the fastest is foretold at every point"
        : `not the fastest: ${summary.misranked.join(", ")}`) +
      `; ${summary.cores} cores, load ${summary.load!.toFixed(1)}`
  )
}
