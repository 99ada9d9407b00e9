// Foretells and then measures: data-parallel algorithms over links of several bandwidths, from one profile at full speed. Ranks are
// processes in network namespaces with shaped links (namespaces.ts), one GPU each while there are that many; NCCL goes over their
// sockets. The point "nvlink" leaves the namespaces out: NCCL as it comes. Needs root and iproute2.
//   node bench/cluster/what-if-gpu.ts --backend cuda --out what-if.json
//   node bench/cluster/what-if-gpu.ts --backend cpu --scenario scenarios/train-tiny.yaml --points 100Mbit/s,1Gbit/s --wire float32
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { createInterface, type Interface } from "node:readline"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Bandwidth } from "../../core/units.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runPrepared } from "../../sim/run.ts"
import { Cluster } from "./namespaces.ts"
import type { Answer, Request } from "./what-if-gpu-rank.ts"

const { values: options } = parseArgs({
  options: {
    scenario: { type: "string", default: "scenarios/measured/what-if-gpt2.yaml" },
    backend: { type: "string", default: "cuda" },
    ranks: { type: "string", default: "2" },
    points: {
      type: "string",
      default: "nvlink,25Gbit/s,10Gbit/s,5Gbit/s,2Gbit/s,1Gbit/s,0.5Gbit/s"
    },
    period: { type: "string", default: "20" },
    /** Of DDP's gradients. */
    wire: { type: "string", default: "bfloat16" },
    out: { type: "string" },
    "budget-seconds": { type: "string", default: "1000000" }
  }
})
const ranks = Number(options.ranks)
const period = Number(options.period)
const deadline = performance.now() + 1000 * Number(options["budget-seconds"])
const file = path.resolve(options.scenario)
const folder = mkdtempSync(path.join(tmpdir(), "what-if-"))

const algorithms: Readonly<Record<string, string>> = {
  ddp: `{name: ddp, wire: ${options.wire}}`,
  "local-sgd": `{name: local-sgd, period: ${period}}`,
  "partial-local-sgd": `{name: partial-local-sgd, period: ${period}}`,
  dreamddp: `{name: dreamddp, period: ${period}}`,
  diloco: `{name: diloco, period: ${period}}`,
  "streaming-diloco": `{name: streaming-diloco, period: ${period}, delaySteps: ${Math.floor(period / 20)}}`
}

/** Variables of a rank in a namespace of its own, as on a host of its own. */
const asHost = (rank: number): Readonly<Record<string, string>> => ({
  NCCL_HOSTID: `host ${rank}`,
  NCCL_SOCKET_IFNAME: "eth0",
  NCCL_IB_DISABLE: "1",
  NCCL_NVLS_ENABLE: "0",
  // A few connections, so that the link and not one core is the limit, and short buffers. With sixteen connections NCCL uses 12 %
  // less of 10 Gbit/s, with its own buffers of 4 MiB 4 % less of 1 Gbit/s, in messages of 12.5 MB.
  NCCL_NSOCKS_PERTHREAD: "2",
  NCCL_SOCKET_NTHREADS: "2",
  NCCL_BUFFSIZE: "1048576"
})

let port = 29_400

/** Starts the same program once for each rank, in the cluster's namespaces or, without one, here. */
const start = (
  cluster: Cluster | undefined,
  command: ReadonlyArray<string>,
  stdio: "pipe" | "inherit"
): ReadonlyArray<ChildProcess> => {
  const secret = randomBytes(32).toString("hex")
  port++
  return Array.from({ length: ranks }, (_, rank) => {
    const env = {
      ...process.env,
      TANDEM_RANK: String(rank),
      TANDEM_LOCAL_RANK: String(rank),
      TANDEM_WORLD_SIZE: String(ranks),
      TANDEM_SECRET: secret,
      MASTER_ADDR: cluster?.addressOf(0) ?? "127.0.0.1",
      MASTER_PORT: String(port),
      ...(cluster === undefined ? {} : asHost(rank))
    }
    const whole = [process.execPath, ...process.execArgv, ...command]
    const how = { env, stdio: [stdio, stdio, "inherit"] as const }
    return cluster === undefined
      ? spawn(whole[0]!, whole.slice(1), { env, stdio: [...how.stdio] })
      : cluster.spawn(rank, whole, { env, stdio: [...how.stdio] })
  })
}

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    child.on("close", (code) => {
      if (code === 0) resolve()
      else reject(new Error(`a rank ended with code ${code}`))
    })
  })

/** The profile of one step, and of collectives over links that are no limit. */
const profile = async (cluster: Cluster | undefined, name: string): Promise<string> => {
  const out = path.join(folder, `${name}.arrow`)
  const command = ["exec/cli.ts", "profile", file, "--set", `world.ranks=${ranks}`]
  await Promise.all(
    start(cluster, [...command, "--backend", options.backend, "--steps", "20", "-o", out], "inherit").map(
      ended
    )
  )
  return out
}

/** Ranks that run what they are told, one after another. */
class Runners {
  readonly #children: ReadonlyArray<ChildProcess>
  readonly #answers: Interface
  readonly #waiting: Array<(answer: Answer) => void> = []

  constructor(cluster: Cluster | undefined) {
    this.#children = start(
      cluster,
      ["bench/cluster/what-if-gpu-rank.ts", "--backend", options.backend],
      "pipe"
    )
    this.#answers = createInterface({ input: this.#children[0]!.stdout! })
    this.#answers.on("line", (line) => this.#waiting.shift()?.(JSON.parse(line) as Answer))
    this.#children[0]!.on("close", () => {
      for (const tell of this.#waiting) tell({ error: "the rank has ended" })
    })
  }

  run(request: Request): Promise<Answer> {
    for (const { stdin } of this.#children) stdin!.write(`${JSON.stringify(request)}\n`)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  async close(): Promise<void> {
    for (const { stdin } of this.#children) stdin!.end()
    await Promise.allSettled(this.#children.map(ended))
  }
}

const foretell = (set: ReadonlyArray<string>): Promise<number> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const scenario = yield* loadScenario(file, set)
      const host = hostOf(new Loader())
      const prepared = yield* familyOf(scenario).prepare(scenario, file, host)
      const { result } = yield* runPrepared(scenario, prepared)
      return (result as unknown as { readonly stepSeconds: number }).stepSeconds
    })
  )

interface Row {
  readonly point: string
  readonly algorithm: string
  readonly predictedSeconds: number
  readonly measured: Answer
}
const rows: Array<Row> = []

const keep = (): void => {
  if (options.out !== undefined)
    writeFileSync(
      options.out,
      `${JSON.stringify({ ranks, period, scenario: options.scenario, rows }, undefined, 1)}\n`
    )
}

/** All algorithms at one point. `compute`: the profile that layers are from; `collectives`: that of these links without limit. */
const measure = async (
  runners: Runners,
  point: string,
  bandwidth: string,
  compute: string,
  collectives: string
): Promise<void> => {
  for (const [name, algorithm] of Object.entries(algorithms)) {
    if (performance.now() > deadline) return
    const common = [
      `world.ranks=${ranks}`,
      `world.links.inter.bandwidth=${bandwidth}`,
      `algorithm=${algorithm}`,
      `collectives={measured: ${collectives}}`,
      ...(name === "ddp" ? [`steps=${Schema.decodeUnknownSync(Bandwidth)(bandwidth) < 5e8 ? 3 : 10}`] : [])
    ]
    const [predictedSeconds, measured] = await Promise.all([
      foretell([...common, `model={profile: ${compute}}`]),
      runners.run({ file, set: common, planFrom: compute })
    ])
    rows.push({ point, algorithm: name, predictedSeconds, measured })
    keep()
    const real = "error" in measured ? undefined : measured.stepSeconds
    const told =
      "error" in measured
        ? measured.error
        : `${(1e3 * measured.stepSeconds).toFixed(2)} ms, off by ${(100 * (predictedSeconds / real! - 1)).toFixed(2)} %; ` +
          `compute ${(1e3 * measured.computeSeconds).toFixed(2)}, communication ${(1e3 * measured.communicationSeconds).toFixed(2)}`
    console.log(`${point} ${name}: foretold ${(1e3 * predictedSeconds).toFixed(2)} ms, took ${told}`)
  }
}

/** Whether algorithms are in the same order of step time, where they differ by more than `tie`. */
const sameRanking = (list: ReadonlyArray<Row>, tie: number): boolean =>
  list.every((a) =>
    list.every((b) => {
      if ("error" in a.measured || "error" in b.measured) return true
      const [real, foretold] = [
        a.measured.stepSeconds / b.measured.stepSeconds,
        a.predictedSeconds / b.predictedSeconds
      ]
      return Math.abs(real - 1) <= tie || Math.abs(foretold - 1) <= tie || real > 1 === foretold > 1
    })
  )

const summary = (): string => {
  const errors = rows.flatMap(({ measured, predictedSeconds }) =>
    "error" in measured ? [] : [Math.abs(predictedSeconds / measured.stepSeconds - 1)]
  )
  const sorted = errors.toSorted((a, b) => a - b)
  const points = Map.groupBy(rows, ({ point }) => point)
  const names = Object.keys(algorithms)
  const cell = (list: ReadonlyArray<Row>, name: string): string => {
    const row = list.find(({ algorithm }) => algorithm === name)
    if (row === undefined || "error" in row.measured) return "-"
    const { stepSeconds } = row.measured
    const off = 100 * (row.predictedSeconds / stepSeconds - 1)
    return `${(1e3 * row.predictedSeconds).toFixed(1)} / ${(1e3 * stepSeconds).toFixed(1)} (${off > 0 ? "+" : ""}${off.toFixed(1)} %)`
  }
  return [
    `| link | ${names.join(" | ")} | ranking |`,
    `|${"---|".repeat(names.length + 2)}`,
    ...[...points].map(
      ([point, list]) =>
        `| ${point} | ${names.map((name) => cell(list, name)).join(" | ")} | ${sameRanking(list, 0.01) ? "right" : "WRONG"} |`
    ),
    "",
    `${sorted.length} of ${rows.length} runs; error: median ${(100 * (sorted[sorted.length >> 1] ?? NaN)).toFixed(2)} %, ` +
      `worst ${(100 * (sorted.at(-1) ?? NaN)).toFixed(2)} %`
  ].join("\n")
}

const points = options.points.split(",")
const shaped = points.filter((point) => point !== "nvlink")
// at full speed: layers, and collectives of GPUs that reach each other
const full = await profile(undefined, "full-speed")
console.log(
  spawnSync(process.execPath, [...process.execArgv, "exec/cli.ts", "info"], { encoding: "utf8" }).stdout
)
if (points.includes("nvlink")) {
  const runners = new Runners(undefined)
  await measure(runners, "nvlink", "450GB/s", full, full)
  await runners.close()
}
if (shaped.length > 0) {
  const free = new Cluster(Array.from({ length: ranks }, () => ({ up: Infinity, down: Infinity })))
  const sockets = await profile(free, "sockets").finally(() => free.close())
  const rateOf = Schema.decodeUnknownSync(Bandwidth)
  const first = rateOf(shaped[0]!)
  const cluster = new Cluster(Array.from({ length: ranks }, () => ({ up: first, down: first })))
  try {
    const runners = new Runners(cluster)
    for (const point of shaped) {
      const rate = rateOf(point)
      for (let rank = 0; rank < ranks; rank++) cluster.setRates(rank, { up: rate, down: rate })
      await measure(runners, point, point, full, sockets)
    }
    await runners.close()
  } finally {
    cluster.close()
  }
}
console.log(summary())
keep()
