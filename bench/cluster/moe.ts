// FSMoE predicted and then run: a layer of experts on two nodes of two ranks is profiled once, op by op; the simulator says from that
// profile alone what a step takes without pipelining, with fixed degrees and with the planned ones; then each is run. A process for
// each rank, a network namespace for each node, whose link is shaped as the scenario says. Needs root and iproute2; without them
// nodes are joined by the loopback device, which is told.
//   node bench/cluster/moe.ts                     processor threads that stand for slow devices, a small layer
//   node bench/cluster/moe.ts --backend cuda      rank r on GPU r modulo GPUs: on two, each has a rank of either node. NCCL goes by
//                                                 NVLink inside a node, by sockets between nodes
//   node bench/cluster/moe.ts --backend cuda --mps   processes of a GPU run at once (CUDA MPS), not in turn
// Exit code 1 where anything was not measured, or predicted by more than 5 % off, which was set before anything was run.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { printEstimates } from "../../core/cost/provenance.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { messageOf } from "../../core/message-of.ts"
import { warmupSteps } from "../../scenarios/families/moe-training/simulated.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { readProfile } from "../../traces/profile-file.ts"
import type { Request } from "./moe-rank.ts"
import { reportOf, rowLines, type Row } from "./moe-report.ts"
import { startMps, type Mps } from "./mps.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"
import { ended, Runners, startRanks } from "./runners.ts"
import { stepParts, type StepParts } from "./step-parts.ts"
import { backendOf, namesOf, optionsOf, positiveNumber, wholeNumber } from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cpu" },
    scenario: { type: "string" },
    set: { type: "string", multiple: true, default: [] },
    variants: { type: "string" },
    /** Steps of the profile, for each degree. */
    "profile-steps": { type: "string", default: "2" },
    /** A run, or the profile, that takes longer is ended. */
    "patience-seconds": { type: "string", default: "120" },
    mps: { type: "boolean", default: false },
    out: { type: "string" },
    "budget-seconds": { type: "string", default: "1000000" }
  }
})
const tolerance = 0.05
const profileSteps = String(wholeNumber("--profile-steps", options["profile-steps"]))
process.chdir(fileURLToPath(new URL("../..", import.meta.url)))
const emulateDevice = backendOf(options.backend) !== "cuda"
const scenarioFile =
  options.scenario ?? (emulateDevice ? "bench/cluster/moe.yaml" : "scenarios/measured/fsmoe-layer.yaml")
const file = path.resolve(scenarioFile)
const deadline = performance.now() + 1000 * positiveNumber("--budget-seconds", options["budget-seconds"])
const patienceSeconds = positiveNumber("--patience-seconds", options["patience-seconds"])
const planned = "fsmoe, planned"
const fixed = (degree: number): readonly [string, string] => [
  `fsmoe, degree ${degree}`,
  `{name: fsmoe, forwardDegree: ${degree}, backwardDegree: ${degree}}`
]
const all = new Map([
  ["no pipelining", "{name: deepspeed-moe}"],
  fixed(4),
  [planned, "{name: fsmoe}"],
  fixed(2),
  fixed(8)
])
const variants =
  options.variants === undefined
    ? [...all.keys()]
    : namesOf("--variants", options.variants, [...all.keys()], "; ")

const perHost = 2
const { world } = await Effect.runPromise(loadScenario(file, options.set)).then((scenario) => {
  if (scenario.task !== "moe-training") throw new Error(`${scenarioFile}: a scenario of MoE training`)
  return scenario
})
const ranks = 2 * perHost
if (world.ranks !== ranks || world.ranksPerNode !== perHost)
  throw new Error(`${scenarioFile}: world: expected ranks: ${ranks}, ranksPerNode: ${perHost}`)
const rate = world.links.inter.bandwidth

const folder = mkdtempSync(path.join(tmpdir(), "moe-"))
const noCluster = whyNoCluster()
const startedMps = (): Mps | undefined => {
  try {
    return options.mps ? startMps(folder) : undefined
  } catch (cause) {
    console.log(messageOf(cause))
    process.exit(1)
  }
}
const mps = startedMps()
const env: Record<string, string> = {
  NCCL_DEBUG: "INFO",
  NCCL_DEBUG_SUBSYS: "INIT,P2P,SHM,NET,GRAPH",
  NCCL_DEBUG_FILE: path.join(folder, "nccl.%p"),
  ...(noCluster === undefined ? {} : { NCCL_SOCKET_IFNAME: "lo", NCCL_IB_DISABLE: "1" }),
  ...mps?.env
}

/** What the files of the folder with these names say that is worth a line. */
const linesOf = (name: RegExp, worth: RegExp): ReadonlyArray<string> =>
  readdirSync(folder)
    .filter((one) => name.test(one))
    .flatMap((one) => readFileSync(path.join(folder, one), "utf8").split("\n"))
    .filter((line) => worth.test(line))

/** How NCCL reaches whom, and what it complains of. */
const ncclTold = (): ReadonlyArray<string> => {
  const ways = new Map<string, number>()
  for (const line of linesOf(/^nccl\./u, / via /u)) {
    const way = / via (\S+)/u.exec(line)?.[1] ?? "?"
    ways.set(way, (ways.get(way) ?? 0) + 1)
  }
  const complaints = [...new Set(linesOf(/^nccl\./u, /WARN/u))].slice(0, 10)
  if (ways.size === 0) return complaints
  return [
    `NCCL's channels go by ${[...ways].map(([way, count]) => `${way} (${count})`).join(", ")}`,
    ...complaints
  ]
}

/** The promise, or an error once so much time has gone, after `give up`. */
const within = async <A>(what: string, promise: Promise<A>, giveUp: () => void): Promise<A> => {
  const seconds = Math.max(1, Math.min(patienceSeconds, (deadline - performance.now()) / 1000))
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      giveUp()
      reject(new Error(`${what} took longer than ${seconds.toFixed(0)} s`))
    }, 1000 * seconds)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

interface Profiled {
  readonly file: string
  /** How many times as long kernels take beside collectives, and collectives beside kernels. */
  readonly slowdown: number
  readonly collectiveSlowdown: number
}

/** Every op alone, and every collective on these links, with all ranks doing the same at once; and what company costs them. */
const profile = async (cluster: Cluster | undefined): Promise<Profiled> => {
  const out = path.join(folder, "profile.arrow")
  const sets = options.set.flatMap((set) => ["--set", set])
  const on = ["--backend", options.backend, ...(emulateDevice ? ["--emulate-device"] : [])]
  const command = [
    "exec/cli.ts",
    "profile",
    file,
    ...sets,
    ...on,
    "--steps",
    profileSteps,
    "-o",
    out,
    "--json"
  ]
  const children = startRanks(ranks, cluster, command, "pipe", { perHost, env })
  const stop = (): void => {
    for (const child of children) child.kill("SIGKILL")
  }
  let told = ""
  for (const [rank, { stdout }] of children.entries())
    stdout!.on("data", (chunk) => {
      if (rank === 0) told += String(chunk)
    })
  const done = Promise.all(children.map(ended))
  done.catch(stop)
  await within("the profile", done, stop)
  const { slowdown = 1, collectiveSlowdown = 1 } = JSON.parse(told) as Partial<Profiled>
  return { file: out, slowdown, collectiveSlowdown }
}

/** What is in a profile's times is no limit once more. */
const unlimited = "world.links.inter.bandwidth=450GB/s"

const settingsOf = (variant: string, from: Profiled | undefined): ReadonlyArray<string> => {
  const set = [...options.set, unlimited, `algorithm=${all.get(variant)!}`]
  if (from === undefined) return set
  const tiers = ["products", "between", "inside"].map((tier) => `${tier}: {profile: ${from.file}}`)
  return [...set, `costs={${tiers.join(", ")}, slowdown: ${from.slowdown}}`]
}

interface Predicted {
  readonly predicted: StepParts
  readonly degrees: readonly [number, number]
  /** What the profile does not have. */
  readonly estimates: ReadonlyArray<string>
}

const predict = async (set: ReadonlyArray<string>): Promise<Predicted> => {
  const scenario = await Effect.runPromise(loadScenario(file, set))
  const { result, timeline } = await Effect.runPromise(
    runScenario(scenario, file, { loader: new Loader(), record: true })
  )
  const { stepSeconds, steps, details } = result as unknown as {
    readonly stepSeconds: number
    readonly steps: number
    readonly details: Readonly<Record<"forwardDegrees" | "backwardDegrees", ReadonlyArray<number>>>
  }
  return {
    predicted: { ...stepParts(timeline!, warmupSteps, steps), stepSeconds },
    degrees: [details.forwardDegrees[0]!, details.backwardDegrees[0]!],
    // That the host is free is in the times: they are from the end of the op before.
    estimates: printEstimates(result.estimates.filter(({ kernel }) => kernel !== "host"))
  }
}

const collectiveLine = ({
  op,
  ranks: members,
  sizeBytes,
  medianSeconds,
  besideSeconds
}: CollectiveCost): string =>
  `  ${op} of ${members}, ${(sizeBytes / 1e6).toFixed(3)} MB: ${(1e3 * medianSeconds).toFixed(3)} ms, ${(sizeBytes / medianSeconds / 1e9).toFixed(3)} GB/s` +
  (besideSeconds === undefined ? "" : `; beside products ${(1e3 * besideSeconds).toFixed(3)} ms`)

const rows: Array<Row> = []
const conditions = {
  scenario: scenarioFile,
  set: options.set,
  backend: options.backend,
  mps: options.mps,
  ...(mps === undefined ? {} : { queues: mps.queues }),
  links: noCluster === undefined ? `shaped, ${(rate * 8e-9).toFixed(3)} Gbit/s` : "loopback, not shaped",
  cores: availableParallelism()
}
let profiled: unknown
const keep = (): void => {
  if (options.out === undefined) return
  const told = { ...conditions, tolerance, nccl: ncclTold(), profile: profiled, rows }
  writeFileSync(options.out, `${JSON.stringify(told, undefined, 1)}\n`)
}

const start = (cluster: Cluster | undefined) => {
  const command = ["bench/cluster/moe-rank.ts", "--backend", options.backend]
  const children = startRanks(ranks, cluster, command, "pipe", { perHost, env })
  return { children, runners: new Runners<Request, StepParts>(children) }
}

const measureAll = async (cluster: Cluster | undefined): Promise<void> => {
  let from: Profiled | undefined
  try {
    const began = performance.now()
    from = await profile(cluster)
    const { slowdown, collectiveSlowdown } = from
    const { ops, collectives } = await Effect.runPromise(readProfile(from.file))
    profiled = { slowdown, collectiveSlowdown, ops, collectives }
    console.log(
      `profiled in ${((performance.now() - began) / 1000).toFixed(1)} s; kernels take ${slowdown.toFixed(3)} times as long beside collectives, which is reckoned with, collectives ${collectiveSlowdown.toFixed(3)} times beside kernels, which is reckoned with as the waits that follow`
    )
    for (const line of collectives.map(collectiveLine)) console.log(line)
  } catch (cause) {
    console.log(`no profile, so nothing is predicted: ${messageOf(cause)}`)
  }
  // All that is predicted is said before anything is run.
  const ahead: Array<Row & { readonly set: ReadonlyArray<string> }> = []
  for (const variant of variants) {
    const set = settingsOf(variant, from)
    try {
      if (from === undefined) {
        ahead.push({ variant, set })
        continue
      }
      const { predicted, degrees, estimates } = await predict(set)
      const without = await predict([...set, "costs.wait=0s"])
      ahead.push({ variant, set, predicted, degrees })
      console.log(
        `${variant}: predicted ${(1e3 * predicted.stepSeconds).toFixed(1)} ms (${(1e3 * without.predicted.stepSeconds).toFixed(1)} if messages did not wait), degrees ${degrees.join(" and ")}; not in the profile: ${estimates.join("; ") || "nothing"}`
      )
    } catch (cause) {
      console.log(`${variant}: not predicted: ${messageOf(cause)}`)
      ahead.push({ variant, set })
    }
  }
  let started: ReturnType<typeof start> | undefined
  for (const { set, ...row } of ahead) {
    if (performance.now() > deadline) {
      rows.push(row)
      continue
    }
    // Ranks that have failed are no use to the next.
    started = started?.runners.over === false ? started : start(cluster)
    const { runners, children } = started
    const stop = (): void => {
      for (const child of children) child.kill("SIGKILL")
    }
    const measured = await within(row.variant, runners.run({ file, set, emulateDevice }), stop).catch(
      (cause: unknown) => ({ error: messageOf(cause) })
    )
    rows.push({ ...row, measured })
    if ("error" in measured) {
      stop()
      started = undefined
    }
    for (const line of rowLines(rows.at(-1)!)) console.log(line)
    keep()
  }
  await started?.runners.close()
}

console.log(
  spawnSync(process.execPath, [...process.execArgv, "exec/cli.ts", "info"], { encoding: "utf8" }).stdout
)
if (noCluster !== undefined)
  console.log(`no network namespaces here, nodes are joined by the loopback device: ${noCluster}`)
const rates = { up: rate, down: rate }
const cluster = noCluster === undefined ? new Cluster([rates, rates]) : undefined
try {
  await measureAll(cluster)
} finally {
  cluster?.close()
  mps?.stop()
}
const { text, complete, worstError } = reportOf(rows, planned)
for (const line of [
  ...ncclTold(),
  ...(options.mps ? linesOf(/^(?:control|server)\.log$/u, /./u).slice(-10) : [])
])
  console.log(line)
console.log(
  `\n${conditions.links}${options.mps ? ", MPS" : ""}, ${conditions.cores} cores, load ${loadavg()[0]!.toFixed(1)}\n${text}`
)
keep()
rmSync(folder, { recursive: true, force: true })
process.exitCode = complete && worstError <= tolerance ? 0 : 1
