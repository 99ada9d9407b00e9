// What if the links were slower? A model is profiled once, at full speed; the simulator says what a step takes on links of other
// bandwidths under each algorithm, before anything is run; then ranks in network namespaces with shaped links (namespaces.ts) really
// train over them. Needs root and iproute2.
//   node bench/cluster/what-if.ts                     processor threads that stand for a slow device; 2 and 4 ranks
//   node bench/cluster/what-if.ts --backend cuda      a GPU for each of 2 ranks, NCCL over sockets; "nvlink": NCCL as it comes
//   node bench/cluster/what-if.ts --backend cuda --scenario scenarios/measured/what-if-llama.yaml --points nvlink,25Gbit/s,10Gbit/s
// A point is a bandwidth of every rank's link in each direction; "asymmetric:" before it gives rank 0 a quarter of it, "drop:" a
// tenth from the middle of the run on. Exit code 1 where anything was not measured, or not within the bounds, which were set before
// anything was run: the median error of a step at most 3 %, the worst 10 %.
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Schema from "effect/Schema"
import { Bandwidth } from "../../core/units.ts"
import type { ExecutedSteps } from "./measured-steps.ts"
import { foretell, profileLine, startProfile } from "./foretell.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"
import { opByOp } from "./op-by-op.ts"
import { ended, Runners, startRanks } from "./runners.ts"
import type { Request, Told } from "./what-if-rank.ts"
import { reportOf, rowLine, type Row } from "./what-if-report.ts"

const { values: options } = parseArgs({
  options: {
    backend: { type: "string", default: "cpu" },
    scenario: { type: "string" },
    ranks: { type: "string" },
    points: { type: "string" },
    algorithms: { type: "string", default: "" },
    period: { type: "string" },
    /** Of DDP's gradients. */
    wire: { type: "string" },
    out: { type: "string" },
    /** Print the ops of rank 0 too, foretold and measured beside each other. */
    ops: { type: "boolean", default: false },
    "budget-seconds": { type: "string", default: "1000000" }
  }
})
const bounds = { median: 0.03, worst: 0.1 }
const root = fileURLToPath(new URL("../..", import.meta.url))
/** Whatever a backend's ranks are, they are to have a step in which links matter. */
const usual =
  options.backend === "cuda"
    ? {
        scenario: "scenarios/measured/what-if-gpt2.yaml",
        ranks: "2",
        points: "nvlink,25Gbit/s,10Gbit/s,5Gbit/s,2Gbit/s,1Gbit/s,0.5Gbit/s",
        period: "20",
        wire: "bfloat16"
      }
    : {
        scenario: "bench/cluster/what-if.yaml",
        ranks: "2,4",
        points: "50Mbit/s,200Mbit/s,500Mbit/s,asymmetric:200Mbit/s,drop:200Mbit/s",
        period: "4",
        wire: "float32"
      }
const chosen = {
  ...usual,
  ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
} as typeof usual & typeof options
const emulateDevice = options.backend !== "cuda"
const period = Number(chosen.period)
const deadline = performance.now() + 1000 * Number(chosen["budget-seconds"])
const file = path.resolve(root, chosen.scenario)
process.chdir(root)

const all: Readonly<Record<string, string>> = {
  ddp: `{name: ddp, wire: ${chosen.wire}}`,
  "local-sgd": `{name: local-sgd, period: ${period}}`,
  "partial-local-sgd": `{name: partial-local-sgd, period: ${period}}`,
  dreamddp: `{name: dreamddp, period: ${period}}`,
  diloco: `{name: diloco, period: ${period}}`,
  "streaming-diloco": emulateDevice
    ? `{name: streaming-diloco, period: ${period}, fragments: 2, delaySteps: 1}`
    : `{name: streaming-diloco, period: ${period}, delaySteps: ${Math.floor(period / 20)}, message: fragment}`
}
const names = chosen.algorithms === "" ? Object.keys(all) : chosen.algorithms.split(",")

const rateOf = Schema.decodeUnknownSync(Bandwidth)

interface Point {
  readonly name: string
  readonly bandwidth: string
  /** What becomes of rank 0's link. */
  readonly rank0: "as the others" | "asymmetric" | "drop"
}

const pointNamed = (name: string): Point => {
  if (name === "nvlink") return { name, bandwidth: "450GB/s", rank0: "as the others" }
  const [kind, bandwidth] = name.includes(":") ? (name.split(":") as [string, string]) : ["", name]
  if (kind !== "" && kind !== "asymmetric" && kind !== "drop")
    throw new Error(`${name}: a bandwidth, or one behind "asymmetric:" or "drop:"`)
  return { name, bandwidth, rank0: kind === "" ? "as the others" : kind }
}

/** What changes of rank 0's link, and when, as a scenario's faults have it. */
interface Change {
  readonly fromSeconds: number
  readonly bytesPerSecond: number
}

const faultOf = ({ fromSeconds, bytesPerSecond }: Change): string =>
  `faults=[{link: inter, of: 0, bandwidth: ${bytesPerSecond}B/s, from: ${fromSeconds}s}]`

interface Profiled {
  readonly file: string
  /** How many times as long kernels take beside collectives on those links. */
  readonly slowdown: number
}

/** The profile of one step, and of collectives over links that are no limit. */
const profile = async (ranks: number, cluster: Cluster | undefined, name: string): Promise<Profiled> => {
  const out = path.join(folder, `${name}-${ranks}.arrow`)
  const { backend } = options
  const { children, told } = startProfile({ file, set: [], ranks, cluster, backend, emulateDevice, out })
  await Promise.all(children.map(ended))
  console.log(`${ranks} ranks, ${name}: ${profileLine(told())}`)
  // Kernels of an emulated device wait for its time, whatever else the cores do.
  return { file: out, slowdown: emulateDevice ? 1 : (told().slowdown ?? 1) }
}

/** Where runs are taken: their profiles, and the links. */
interface Where {
  readonly ranks: number
  readonly runners: Runners<Request, Told>
  readonly cluster: Cluster | undefined
  /** The profile that layers are from, and that of collectives on these links without limit. */
  readonly compute: Profiled
  readonly collectives: Profiled
}

const rows: Array<Row> = []

const withoutOps = ({ stepSeconds, computeSeconds, communicationSeconds }: Told): ExecutedSteps => ({
  stepSeconds,
  computeSeconds,
  communicationSeconds
})

const measure = async (
  { ranks, runners, cluster, compute, collectives }: Where,
  point: Point
): Promise<void> => {
  const rate = rateOf(point.bandwidth)
  const setRate = (rank: number, bytesPerSecond: number): void =>
    cluster?.setRates(rank, { up: bytesPerSecond, down: bytesPerSecond })
  for (const name of names) {
    const common = [
      `world.ranks=${ranks}`,
      `world.links.inter.bandwidth=${point.bandwidth}`,
      `algorithm=${all[name]}`,
      `collectives.measured=${collectives.file}`,
      // NCCL does not add FP4: everybody sends to everybody what it has packed.
      ...(name === "streaming-diloco" && !emulateDevice ? ["collectives.algorithm=direct"] : [])
    ]
    if (name === "ddp" && !emulateDevice) {
      const { stepSeconds } = await foretell(file, [...common, `model={profile: ${compute.file}}`])
      common.push(`steps=${stepSeconds > 1 ? 3 : 10}`)
    }
    // Both machines are asked for the same; what slows kernels down is there in a real run.
    const slowed = collectives.slowdown > 1 ? [`collectives.slowdown=${collectives.slowdown}`] : []
    const modelled = [...common, ...slowed, `model={profile: ${compute.file}}`]
    let change: Change | undefined
    if (point.rank0 === "asymmetric") change = { fromSeconds: 0, bytesPerSecond: rate / 4 }
    if (point.rank0 === "drop")
      change = {
        fromSeconds: (await foretell(file, modelled)).makespanSeconds / 2,
        bytesPerSecond: rate / 10
      }
    const foretold = await foretell(file, [...modelled, ...(change === undefined ? [] : [faultOf(change)])])
    const row = {
      ranks,
      point: point.name,
      algorithm: name,
      predictedSeconds: foretold.stepSeconds,
      predictedComputeSeconds: foretold.computeSeconds
    }
    if (performance.now() > deadline) {
      rows.push({ ...row, measured: undefined })
      continue
    }
    for (let rank = 0; rank < ranks; rank++) setRate(rank, rate)
    let later: NodeJS.Timeout | undefined
    if (change?.fromSeconds === 0) setRate(0, change.bytesPerSecond)
    const answer = await runners.run(
      { file, set: common, planFrom: compute.file, emulateDevice, ops: options.ops },
      () => {
        if (change !== undefined && change.fromSeconds > 0)
          later = setTimeout(() => setRate(0, change.bytesPerSecond), 1000 * change.fromSeconds)
      }
    )
    clearTimeout(later)
    rows.push({ ...row, measured: "error" in answer ? answer : withoutOps(answer) })
    console.log(rowLine(rows.at(-1)!))
    if ("ops" in answer) console.log(opByOp(foretold.ops, answer.ops!, answer.warmupSteps))
    keep()
  }
}

const keep = (): void => {
  if (chosen.out !== undefined)
    writeFileSync(
      chosen.out,
      `${JSON.stringify({ period, scenario: chosen.scenario, rows }, undefined, 1)}\n`
    )
}

const startRunners = (ranks: number, cluster: Cluster | undefined): Runners<Request, Told> =>
  new Runners(
    startRanks(ranks, cluster, ["bench/cluster/what-if-rank.ts", "--backend", options.backend], "pipe")
  )

const points = chosen.points.split(",").map(pointNamed)
const shaped = points.filter(({ name }) => name !== "nvlink")
const reason = shaped.length === 0 ? undefined : whyNoCluster()
if (reason !== undefined) {
  console.error(`no network namespaces here: ${reason}`)
  process.exit(2)
}
const folder = mkdtempSync(path.join(tmpdir(), "what-if-"))
console.log(
  spawnSync(process.execPath, [...process.execArgv, "exec/cli.ts", "info"], { encoding: "utf8" }).stdout
)
try {
  for (const ranks of chosen.ranks.split(",").map(Number)) {
    // At full speed: layers, and collectives of ranks that reach each other as they are.
    const full = await profile(ranks, undefined, "full-speed")
    if (shaped.length < points.length) {
      const runners = startRunners(ranks, undefined)
      const where = { ranks, runners, cluster: undefined, compute: full, collectives: full }
      await measure(where, pointNamed("nvlink"))
      await runners.close()
    }
    if (shaped.length === 0) continue
    const free = new Cluster(Array.from({ length: ranks }, () => ({ up: Infinity, down: Infinity })))
    const sockets = await profile(ranks, free, "sockets").finally(() => free.close())
    const first = rateOf(shaped[0]!.bandwidth)
    const cluster = new Cluster(Array.from({ length: ranks }, () => ({ up: first, down: first })))
    try {
      const runners = startRunners(ranks, cluster)
      const where = { ranks, runners, cluster, compute: full, collectives: sockets }
      for (const point of shaped) await measure(where, point)
      await runners.close()
    } finally {
      cluster.close()
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
const { text, complete, medianError, worstError } = reportOf(rows, names)
console.log(`\n${text}\n${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`)
keep()
process.exitCode = complete && medianError <= bounds.median && worstError <= bounds.worst ? 0 : 1
