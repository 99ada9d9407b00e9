// What if the links were slower? A model is profiled once, at full speed; the simulator says what a step takes on links of other
// bandwidths under each algorithm, before anything is run; then ranks in network namespaces with shaped links (namespaces.ts) really
// train over them. Needs root and iproute2.
//   node bench/cluster/what-if.ts                     processor threads that stand for a slow device; 2 and 4 ranks
//   node bench/cluster/what-if.ts --backend cuda      a GPU for each of 2 ranks, NCCL over sockets; "nvlink": NCCL as it comes
//   node bench/cluster/what-if.ts --backend cuda --scenario scenarios/measured/what-if-llama.yaml --points nvlink,25Gbit/s,10Gbit/s
//   node bench/cluster/what-if.ts --backend cuda --ranks 4 --sites 2        HSDP and sharded sites: the ranks of a site share a namespace,
//                                                     NVLink is inside, and the profiles are of two ranks: one site's, and one of each
//   node bench/cluster/what-if.ts --backend cuda --algorithms ddp,fsdp       a model of which each rank holds a part alone
//   node bench/cluster/what-if.ts --backend cuda --ranks 4 --mps --points 5Gbit/s        on two GPUs, two ranks of each at once; with
//                                                     --sites 2 a rank of either site has a part of each
//   node bench/cluster/what-if.ts --backend cuda --ranks 4 --exact-sums      DDP's 16-bit gradients exchanged, added by own kernels and rounded
//                                                     once; without, NCCL adds them, as under PyTorch's DDP
//   node bench/cluster/what-if.ts --backend cuda --torch          PyTorch's own steps too (torch, transformers): whole models under DDP,
//                                                     with --sites HSDP; never while ours run, in none of the errors, not at "drop:";
//                                                     with --backend cpu on gloo, beside a device that ours only stands for
// Steps on GPUs are of a run that nobody times, as is the profile; with --ops a timed run before it tells what lanes do.
// A point is a bandwidth of every host's link in each direction; "asymmetric:" before it gives host 0 a quarter of it, "drop:" a
// tenth from the middle of the run on, and "@15ms" behind it lets everything that is sent take so long. Exit code 1 where anything was not measured, PyTorch's steps too, or not within the bounds, which were set before
// anything was run: the median error of a step at most 3 %, the worst 10 %.
import { spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { WireDtype } from "../../core/algorithms/data-parallel/fields.ts"
import { messageOf } from "../../core/message-of.ts"
import { predict, profileLine, startProfile } from "./predict.ts"
import { startMps } from "./mps.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"
import { opByOp } from "./op-by-op.ts"
import { ended, ncclChunkBytes, Runners, startRanks } from "./runners.ts"
import {
  algorithmsOf,
  insideSettings,
  fullyDivided,
  laidOut,
  layoutOf,
  layoutSettings,
  nvlink,
  pointNamed,
  settlingSteps,
  stepsAreAlike,
  type Layout,
  type Point
} from "./what-if-choices.ts"
import type { MeasuredSteps, Request, Told } from "./what-if-rank.ts"
import { reportOf, rowLine, torchFigures, torchLine, type Row, type TorchRow } from "./what-if-report.ts"
import { torchModeOf, torchModelOf, torchStepsAt, whyNoTorch, type BesideTorch } from "./what-if-torch.ts"
import {
  backendOf,
  nameOf,
  namesOf,
  numbersOf,
  optionsOf,
  positiveNumber,
  readBy,
  wholeNumber
} from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cpu" },
    scenario: { type: "string" },
    ranks: { type: "string" },
    /** So many hosts, of equally many ranks, each of which holds the model in parts; default: a host for each rank. */
    sites: { type: "string" },
    /** With sites: each rank holds the whole model. */
    whole: { type: "boolean", default: false },
    /** Ranks that share a GPU run on it at once. */
    mps: { type: "boolean", default: false },
    /** Of 16-bit gradients of more than two ranks. */
    "exact-sums": { type: "boolean", default: false },
    points: { type: "string" },
    algorithms: { type: "string", default: "" },
    period: { type: "string" },
    /** Of DDP's gradients. */
    wire: { type: "string" },
    out: { type: "string" },
    /** A folder for the profiles that it was predicted from, which may be predicted from again. */
    profiles: { type: "string" },
    /** Print the ops of rank 0 too, predicted and measured beside each other; on GPUs each run is made twice then. */
    ops: { type: "boolean", default: false },
    /** PyTorch's steps beside ours. */
    torch: { type: "boolean", default: false },
    /** Which has torch and transformers. */
    python: { type: "string", default: "python3" },
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
const emulateDevice = backendOf(options.backend) !== "cuda"
const period = wholeNumber("--period", chosen.period)
const exactSums = options["exact-sums"]
/** Variables of all ranks. */
const sums = exactSums ? { TANDEM_CUDA_NCCL_SUMS: "0" } : {}
const deadline = performance.now() + 1000 * positiveNumber("--budget-seconds", chosen["budget-seconds"])
const secondsLeft = (): number => (deadline - performance.now()) / 1000
const file = path.resolve(root, chosen.scenario)
process.chdir(root)

const sites = options.sites === undefined ? undefined : wholeNumber("--sites", options.sites, 2)
const layouts = numbersOf("--ranks", chosen.ranks, wholeNumber).map((ranks) =>
  layoutOf(ranks, sites, options.whole)
)
nameOf("--wire", chosen.wire, WireDtype.literals)
const all = algorithmsOf({ ...chosen, period }, sites !== undefined && !options.whole)
const names =
  chosen.algorithms === ""
    ? Object.keys(all).filter((name) => name !== fullyDivided)
    : namesOf("--algorithms", chosen.algorithms, Object.keys(all))
const points = chosen.points.split(",").map((point) => readBy("--points", point, pointNamed))

/** What changes of host 0's link, and when, as a scenario's faults have it. */
interface Change {
  readonly fromSeconds: number
  readonly bytesPerSecond: number
}

const faultOf = ({ fromSeconds, bytesPerSecond }: Change): string =>
  `faults=[{link: inter, of: 0, bandwidth: ${bytesPerSecond}B/s, from: ${fromSeconds}s}]`

/** Gives each host's link what it has at a point, until something changes. */
const shapeLinks = (
  cluster: Cluster | undefined,
  hosts: number,
  { bytesPerSecond, latencySeconds, host0 }: Point
): void => {
  cluster?.setDelay(latencySeconds)
  for (let host = 0; host < hosts; host++) {
    const own = host === 0 && host0 === "asymmetric" ? bytesPerSecond / 4 : bytesPerSecond
    setRate(cluster, host, own)
  }
}

const setRate = (cluster: Cluster | undefined, host: number, bytesPerSecond: number): void =>
  cluster?.setRates(host, { up: bytesPerSecond, down: bytesPerSecond })

interface Profiled {
  readonly file: string
  /** How many times as long kernels take beside collectives on those links. */
  readonly slowdown: number
}

interface ProfiledIn {
  readonly cluster?: Cluster | undefined
  readonly perHost?: number
  /** So many such jobs at once, on hosts of their own, of which the first one's counts. */
  readonly times?: number
  readonly set?: ReadonlyArray<string>
}

/** The profile of one step, and of collectives, by so many ranks; in the cluster so many of each host. */
const profile = async (
  name: string,
  ranks: number,
  { cluster, perHost = 1, times = 1, set = [] }: ProfiledIn = {}
): Promise<Profiled> => {
  const out = path.join(folder, `${name}-${ranks}.arrow`)
  const { backend } = options
  const about = { file, set, ranks, cluster, perHost, backend, emulateDevice }
  const jobs = Array.from({ length: times }, (_, job) =>
    startProfile({
      ...about,
      out: job === 0 ? out : path.join(folder, `${name}-${ranks}-${job}.arrow`),
      firstHost: (job * ranks) / perHost,
      env: { ...mps?.env, ...sums }
    })
  )
  const { told } = jobs[0]!
  await Promise.all(jobs.flatMap(({ children }) => children).map(ended))
  console.log(`${ranks} ranks, ${name}: ${profileLine(told())}`)
  // Kernels of an emulated device wait for its time, whatever else the cores do.
  const slowdown = emulateDevice ? 1 : (told().slowdownInside ?? told().slowdown ?? 1)
  slowdowns[path.basename(out)] = slowdown
  return { file: out, slowdown }
}

/** Where runs are taken: their profiles, and the links. */
interface Where {
  readonly layout: Layout
  /** Those that are there; after a run that they did not survive, others. */
  readonly runners: () => Promise<Runners<Request, Told>>
  readonly cluster: Cluster | undefined
  /** The profile that layers are from, and those of collectives between hosts, and inside of them, without limit. */
  readonly compute: Profiled
  readonly between: Profiled
  readonly inside: Profiled
}

const rows: Array<Row> = []
const torchRows: Array<TorchRow> = []

const withoutOps = (told: Told): MeasuredSteps => {
  const { ops: _, warmupSteps: __, ...steps } = told
  return steps
}

/** Measured steps where all are alike: for about three seconds. */
const alikeSteps = (stepSeconds: number): number => Math.min(10, Math.max(3, Math.ceil(3 / stepSeconds)))

const measure = async (
  { layout, runners, cluster, compute, between, inside }: Where,
  point: Point
): Promise<void> => {
  const { ranks, hosts, perHost } = layout
  const rate = point.bytesPerSecond
  // Without namespaces each rank has a port of its own.
  const ofHost = cluster === undefined ? perHost * rate : rate
  for (const name of names) {
    const common = [
      ...layoutSettings(layout),
      `world.links.inter.bandwidth=${perHost === 1 ? point.bandwidth : `${ofHost}B/s`}`,
      ...(point.latencySeconds > 0 ? [`world.links.inter.latency=${point.latencySeconds}s`] : []),
      ...(point.latencySeconds > 0 && !emulateDevice ? [`collectives.chunk=${ncclChunkBytes}B`] : []),
      `algorithm=${all[name]}`,
      `collectives.measured=${between.file}`,
      ...(perHost === 1 ? [] : [`collectives.inside=${inside.file}`]),
      ...laidOut(name, { ...chosen, period, exactSums }, layout)
    ]
    if (stepsAreAlike(name) && !emulateDevice) {
      const { stepSeconds } = await predict(file, [...common, `model={profile: ${compute.file}}`])
      common.push(`steps=${alikeSteps(stepSeconds)}`)
    }
    // Both machines are asked for the same; what slows kernels down is there in a real run.
    const slowed = [
      ...(between.slowdown > 1 ? [`collectives.slowdown=${between.slowdown}`] : []),
      // Said where it is none, too: else it would be that of collectives between hosts.
      ...(perHost > 1 ? [`collectives.slowdownInside=${Math.max(1, inside.slowdown)}`] : [])
    ]
    const modelled = [...common, ...slowed, `model={profile: ${compute.file}}`]
    let change: Change | undefined
    if (point.host0 === "asymmetric") change = { fromSeconds: 0, bytesPerSecond: rate / 4 }
    if (point.host0 === "drop")
      change = {
        fromSeconds: (await predict(file, modelled)).makespanSeconds / 2,
        bytesPerSecond: rate / 10
      }
    const predicted = await predict(file, [...modelled, ...(change === undefined ? [] : [faultOf(change)])])
    const row = {
      ranks,
      point: point.name,
      algorithm: name,
      predictedSeconds: predicted.stepSeconds,
      predictedComputeSeconds: predicted.computeSeconds
    }
    if (secondsLeft() < 0) {
      rows.push({ ...row, measured: undefined })
      continue
    }
    shapeLinks(cluster, hosts, point)
    let later: NodeJS.Timeout | undefined
    const settleSteps = emulateDevice ? 0 : settlingSteps(name, period, predicted.stepSeconds)
    const request = {
      file,
      set: common,
      planFrom: compute.file,
      emulateDevice,
      settleSteps,
      ops: options.ops
    }
    const running = await runners()
    const patience = setTimeout(() => running.kill(), 1000 * (60 + 5 * predicted.makespanSeconds))
    const began = performance.now()
    const answer = await running.run(request, () => {
      if (change !== undefined && change.fromSeconds > 0)
        later = setTimeout(() => setRate(cluster, 0, change.bytesPerSecond), 1000 * change.fromSeconds)
    })
    clearTimeout(patience)
    clearTimeout(later)
    const ranSeconds = (performance.now() - began) / 1000
    rows.push({ ...row, measured: "error" in answer ? answer : withoutOps(answer), ranSeconds })
    console.log(rowLine(rows.at(-1)!))
    if ("ops" in answer) console.log(opByOp(predicted.ops, answer.ops!, answer.warmupSteps))
    keep()
  }
}

/** Slowdowns that were predicted with, by profile. */
const slowdowns: Record<string, number> = {}

const keep = (): void => {
  if (chosen.out === undefined) return
  const { scenario, backend, whole, mps: shared } = chosen
  const told = { period, scenario, backend, sites, whole, mps: shared, exactSums, slowdowns, rows }
  const torch = torchMode === undefined ? {} : { torch: torchFigures(torchMode, torchRows, rows) }
  writeFileSync(chosen.out, `${JSON.stringify({ ...told, ...torch }, undefined, 1)}\n`)
}

/** Variables of ranks that measure, PyTorch's like ours. */
const variablesOf = ({ perHost }: Layout): Readonly<Record<string, string>> => ({
  ...mps?.env,
  ...sums,
  // Of rings it is known what crosses the link of a host; of trees, which NCCL takes at times, it depends on where they stand.
  ...(perHost > 1 ? { NCCL_ALGO: "Ring" } : {})
})

const startRunners = (layout: Layout, cluster: Cluster | undefined): Runners<Request, Told> => {
  const command = ["bench/cluster/what-if-rank.ts", "--backend", options.backend]
  const ranksAre = { perHost: layout.perHost, env: variablesOf(layout) }
  return new Runners(startRanks(layout.ranks, cluster, command, "pipe", ranksAre))
}

const clusterOf = (hosts: number, bytesPerSecond: number, delayed = false): Cluster =>
  new Cluster(
    Array.from({ length: hosts }, () => ({ up: bytesPerSecond, down: bytesPerSecond })),
    { delayed }
  )

/** Measures at these points with ranks that end then; and, where PyTorch is asked for, with its ranks after that. */
const measureAt = async (points: ReadonlyArray<Point>, where: Omit<Where, "runners">): Promise<void> => {
  const { layout, cluster } = where
  let running = startRunners(layout, cluster)
  const close = async (): Promise<void> => {
    // Of those that a run has left, some may wait for the others for ever.
    if (running.over) running.kill()
    await running.close()
  }
  const runners = async () => {
    if (running.over) {
      await close()
      running = startRunners(layout, cluster)
    }
    return running
  }
  for (const point of points) await measure({ ...where, runners }, point)
  await close()
  if (torch === undefined) return
  await torchStepsAt(torch, {
    layout,
    points,
    cluster,
    env: variablesOf(layout),
    shape: (point) => shapeLinks(cluster, layout.hosts, point),
    stepSecondsNear: ({ name }) =>
      rows.find((row) => row.ranks === layout.ranks && row.point === name && row.algorithm === "ddp")
        ?.predictedSeconds,
    heard: (row) => {
      torchRows.push(row)
      console.log(torchLine(row, rows))
      keep()
    }
  })
}

/** Layers, and collectives between hosts and inside of them, where nothing limits them but what the ranks will go by. */
const profileShaped = async (layout: Layout, full: Profiled | undefined) => {
  const { ranks, hosts, perHost } = layout
  const free = clusterOf(hosts, Infinity)
  try {
    // Ranks that share GPUs compute as fast as all of them together let each other,
    const together =
      options.mps && perHost > 1 ? await profile("together", ranks, { cluster: free, perHost }) : undefined
    // and share what is between these GPUs.
    const times = options.mps ? hosts : 1
    const site = { cluster: free, perHost, times, set: insideSettings(layout) }
    const inside = perHost > 1 ? await profile("inside", perHost, site) : full
    const between = await profile("sockets", hosts, { cluster: free })
    return { compute: together ?? inside ?? between, between, inside: inside ?? between }
  } finally {
    free.close()
  }
}

const measureAll = async (layout: Layout): Promise<void> => {
  const { ranks, hosts, perHost } = layout
  const reached = shaped.length < points.length
  // At full speed: layers, and collectives of ranks that reach each other as they are; of a site's ranks, where there are sites. NCCL
  // has no two ranks of one host on one GPU, so that those who share GPUs are profiled where they run.
  const full =
    options.mps || (perHost > 1 && !reached)
      ? undefined
      : await profile("full-speed", perHost > 1 ? perHost : ranks, { set: insideSettings(layout) })
  if (full !== undefined && reached)
    await measureAt([pointNamed(nvlink)], {
      layout,
      cluster: undefined,
      compute: full,
      between: full,
      inside: full
    })
  if (shaped.length === 0) return
  const profiles = await profileShaped(layout, full)
  const delayed = shaped.some(({ latencySeconds }) => latencySeconds > 0)
  const cluster = clusterOf(hosts, shaped[0]!.bytesPerSecond, delayed)
  try {
    await measureAt(shaped, { layout, cluster, ...profiles })
  } finally {
    cluster.close()
  }
}

const shaped = points.filter(({ name }) => name !== nvlink)
if (options.mps && shaped.length < points.length) throw new Error(`--mps: with --points that are bandwidths`)
/** What of PyTorch is asked for; undefined where it is not. */
const torchMode = options.torch ? torchModeOf(layouts[0]!) : undefined
const torch: BesideTorch | undefined =
  torchMode === undefined
    ? undefined
    : {
        python: chosen.python,
        backend: options.backend,
        wire: chosen.wire,
        secondsLeft,
        missing: whyNoTorch(chosen.python),
        model: await torchModelOf(file, torchMode, chosen.wire).catch((error: unknown) => {
          console.error(`--torch: ${file}: ${messageOf(error)}`)
          process.exit(2)
        })
      }
if (torch?.missing !== undefined) console.error(`--torch: no steps of PyTorch: ${torch.missing}`)
const reason = shaped.length === 0 ? undefined : whyNoCluster()
if (reason !== undefined) {
  console.error(`no network namespaces here: ${reason}`)
  process.exit(2)
}
const folder = mkdtempSync(path.join(tmpdir(), "what-if-"))
console.log(
  spawnSync(process.execPath, [...process.execArgv, "exec/cli.ts", "info"], { encoding: "utf8" }).stdout
)
const mps = options.mps ? startMps(folder) : undefined
try {
  for (const layout of layouts) await measureAll(layout)
} finally {
  mps?.stop()
  if (options.profiles !== undefined) {
    mkdirSync(options.profiles, { recursive: true })
    for (const name of readdirSync(folder).filter((one) => one.endsWith(".arrow")))
      copyFileSync(path.join(folder, name), path.join(options.profiles, name))
  }
  rmSync(folder, { recursive: true, force: true })
}
const { text, complete, medianError, worstError } = reportOf(
  rows,
  names,
  torchMode === undefined ? undefined : { mode: torchMode, rows: torchRows }
)
console.log(`\n${text}\n${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`)
keep()
process.exitCode = complete && medianError <= bounds.median && worstError <= bounds.worst ? 0 : 1
