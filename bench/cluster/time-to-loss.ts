// How long it takes to come to equal held-out losses where links are slow: GPT-2 124M trained on two ranks in network namespaces with
// shaped links (namespaces.ts), by DDP, Local SGD, DreamDDP, Streaming DiLoCo, and by PyTorch DDP in the same namespaces, from the same
// weights on the same batches. Needs root and iproute2; PyTorch DDP needs torch, transformers and safetensors.
//   node bench/cluster/time-to-loss.ts --out time-to-loss                 a GPU for each rank, NCCL over sockets
//   node bench/cluster/time-to-loss.ts --mps                              both ranks at once on one GPU, by CUDA MPS
//   node bench/cluster/time-to-loss.ts --backend cpu --out time-to-loss   at toy size, to try it
// The clock starts at the end of a run's first step, when kernels are loaded and ranks connected. Parameters are copied on the device at
// the end of some steps and evaluated after the run, so no evaluation is in its time; copies are. A loss is the mean over ranks, each with
// its own parameters. The warm-up and the one rate are the same for all; a run has as many steps as fit into its seconds.
// Writes results.json after every run, and at the end a chart for each link. Exit code 1 where a run failed or had no time.
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { messageOf } from "../../core/message-of.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import { parseBandwidth } from "../../core/units.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { firstValues, writeForTorch } from "../native/for-torch.ts"
import { Crew, graceMillis, within } from "./crew.ts"
import { predict, profileLine, startProfile, type Predicted } from "./predict.ts"
import { gpt2Sizes } from "./hugging-face.ts"
import { startMps } from "./mps.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"
import { ended, Runners, startRanks } from "./runners.ts"
import { chartOf, reportOf, rowLine, together, type Answer, type Row } from "./time-to-loss-report.ts"
import type { HowLong, Request } from "./time-to-loss-rank.ts"
import { backendOf, namesOf, optionsOf, positiveNumber, quantityOf, wholeNumber } from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    out: { type: "string", default: "time-to-loss" },
    points: { type: "string" },
    variants: { type: "string", default: "" },
    steps: { type: "string" },
    /** Of the algorithms that do not communicate in every step; losses are looked at as often. */
    period: { type: "string" },
    /** A run that is predicted to take longer takes fewer steps, whole periods. */
    "run-seconds": { type: "string", default: "32" },
    mps: { type: "boolean", default: false },
    "budget-seconds": { type: "string", default: "1000000" },
    python: { type: "string", default: "python3" }
  }
})
const cuda = backendOf(options.backend) === "cuda"
const usual = cuda
  ? { points: "25Gbit/s,10Gbit/s", steps: "400", period: "20" }
  : { points: "20Mbit/s", steps: "120", period: "10" }
/** Beside what the scenario says. */
const toy = [
  "model={gpt2: {layers: 2, width: 64, heads: 4, vocabulary: 64, vocabularyMultiple: 64, context: 32, batch: 4}}",
  "training.optimizer.learningRate=0.003"
]
const size = cuda ? [] : toy
const points = (options.points ?? usual.points).split(",")
const rates = points.map((point) => quantityOf("--points", point, parseBandwidth))
const steps = wholeNumber("--steps", options.steps ?? usual.steps)
const period = wholeNumber("--period", options.period ?? usual.period)
const budgetSeconds = positiveNumber("--budget-seconds", options["budget-seconds"])
const runSeconds = positiveNumber("--run-seconds", options["run-seconds"])
if (!(Number.isInteger(steps / period) && steps >= 2 * period)) {
  console.error(`--steps: ${steps}; expected a multiple of --period (${period}), at least two of them`)
  process.exit(2)
}
const ranks = 2
const batches = 8
const root = fileURLToPath(new URL("../..", import.meta.url))
const file = path.join(root, "bench/cluster/time-to-loss.yaml")
const out = path.resolve(options.out)
process.chdir(root)

const torch = "torch-ddp"
const base = "ddp"
/** In the order in which they are run: the slowest last. */
const all: Readonly<Record<string, string>> = {
  dreamddp: `{name: dreamddp, period: ${period}}`,
  "local-sgd": `{name: local-sgd, period: ${period}}`,
  "streaming-diloco": `{name: streaming-diloco, period: ${period}, delaySteps: ${Math.floor(period / 20)}, message: fragment}`,
  [base]: "{name: ddp, wire: bfloat16}",
  // As the simulator has it.
  [torch]: "{name: ddp, wire: bfloat16}"
}
const variants =
  options.variants === "" ? Object.keys(all) : namesOf("--variants", options.variants, Object.keys(all))

const started = performance.now()
const secondsLeft = (): number => budgetSeconds - (performance.now() - started) / 1000
const say = (text: string): void =>
  console.log(`[${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s] ${text}`)
/** Kept back of the time that was given, for the report. */
const reserveSeconds = 4

const clusterOf = (rate: number): Cluster =>
  new Cluster(Array.from({ length: ranks }, () => ({ up: rate, down: rate })))

/** A profile at full speed for plans and predictions; undefined where it could not be made. */
const profiled = async (): Promise<string | undefined> => {
  const profile = path.join(out, "profile.arrow")
  // NCCL has no two ranks of one host on one GPU.
  const free = mps === undefined ? undefined : clusterOf(Infinity)
  const about = { file, set: size, ranks, cluster: free, backend: options.backend, out: profile, env }
  const { children, told } = startProfile({ ...about, emulateDevice: false })
  const made = Promise.all(children.map(ended))
    .then(
      () => {
        say(profileLine(told()))
        return ""
      },
      (error: unknown) => messageOf(error)
    )
    .finally(() => free?.close())
  const stop = (): void => children.forEach((child) => void child.kill("SIGKILL"))
  const failure = await within(Math.min(120, secondsLeft() - reserveSeconds), made, stop, "no time was left")
  if (failure === "") return profile
  say(`no profile (${failure}): plans and predictions are from estimates`)
  return undefined
}

const predicted = async (set: ReadonlyArray<string>): Promise<Predicted | undefined> => {
  try {
    return await predict(file, set)
  } catch (error) {
    say(`not predicted: ${messageOf(error)}`)
    return undefined
  }
}

/** What PyTorch reads, in `folder`: the weights that ours begins with, and the tokens. */
const writeFiles = async () => {
  const scenario = await Effect.runPromise(loadScenario(file, size))
  if (scenario.task !== "data-parallel") throw new Error(`${file}: a scenario of data-parallel training`)
  const { graph, corpus } = await Effect.runPromise(prepareTraining(scenario, file, new Loader()))
  if (variants.includes(torch))
    writeForTorch(folder, graph, firstValues(graph, scenario.seed), {
      train: corpus.train.chunk(0),
      "held-out": corpus.heldOut
    })
  const { model, seed, training } = scenario
  if (!("gpt2" in model)) throw new Error(`${file}: model.gpt2, which PyTorch has too`)
  return {
    gradientBytes: 2 * parameterCount(graph),
    forTorch: {
      folder,
      seed,
      batch: model.gpt2.batch,
      sizes: gpt2Sizes(model.gpt2),
      optimizer: training!.optimizer
    }
  }
}
type ForTorch = Awaited<ReturnType<typeof writeFiles>>["forTorch"]

const rows: Array<Row> = []
const keep = (more: object): void =>
  writeFileSync(
    path.join(out, "results.json"),
    `${JSON.stringify({ backend: options.backend, ranks, period, batches, ...more, rows }, undefined, 1)}\n`
  )

/** Of a run, beside its steps: processes that start, first values, evaluations. */
const startSecondsOf = (variant: string): number => (variant === torch ? 25 : cuda ? 10 : 5)

/** As many steps as there is time for, whole periods; 0 where there is too little. */
const stepsWithin = (variant: string, stepSeconds: number): number => {
  const left = secondsLeft() - reserveSeconds - startSecondsOf(variant)
  const seconds = Math.min(runSeconds, left)
  const periods = Math.floor(Math.min(steps, seconds / stepSeconds) / period)
  return periods < 2 ? 0 : periods * period
}

interface Where {
  readonly point: string
  readonly profile: string | undefined
  readonly ours: Crew<Request, Answer>
  readonly theirs: Crew<ForTorch & HowLong, Answer>
  readonly forTorch: ForTorch
}

const measure = async (variant: string, where: Where): Promise<Row> => {
  const { point, profile, ours, theirs, forTorch } = where
  const set = [...size, `world.links.inter.bandwidth=${point}`, `algorithm=${all[variant]}`]
  const modelled = profile === undefined ? set : [...set, `model={profile: ${profile}}`]
  const stepSeconds = (await predicted(modelled))?.stepSeconds
  const own = stepsWithin(variant, stepSeconds ?? runSeconds / steps)
  const about = { point, variant, predictedSeconds: variant === torch ? undefined : stepSeconds }
  if (own === 0) return { ...about, steps: 0, outcome: undefined }
  const long = { steps: own, evaluateEvery: period, batches }
  const most = Math.min(
    secondsLeft() - reserveSeconds,
    3 * own * (stepSeconds ?? Infinity) + 2 * startSecondsOf(variant) + 20
  )
  const answer =
    variant === torch
      ? await theirs.run({ ...forTorch, ...long }, most)
      : await ours.run({ file, set, planFrom: profile, ...long }, most)
  return { ...about, steps: own, outcome: "error" in answer ? answer : together(answer) }
}

const reason = whyNoCluster()
if (reason !== undefined) {
  console.error(`no network namespaces here: ${reason}`)
  process.exit(2)
}
mkdirSync(out, { recursive: true })
console.log(
  spawnSync(process.execPath, [...process.execArgv, "exec/cli.ts", "info"], { encoding: "utf8" }).stdout
)
say(
  `${ranks} ranks, ${steps} steps, period ${period}, ${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`
)
const folder = mkdtempSync(path.join(tmpdir(), "time-to-loss-"))
const mps = options.mps ? startMps(folder) : undefined
process.on("exit", () => {
  mps?.stop()
  rmSync(folder, { recursive: true, force: true })
})
const env = mps?.env ?? {}
const profiling = profiled()
const { gradientBytes, forTorch } = await writeFiles()
say("files for PyTorch are written")
const profile = await profiling
const computeSeconds = (
  await predicted(profile === undefined ? size : [...size, `model={profile: ${profile}}`])
)?.computeSeconds
say(
  `profiled: ${computeSeconds === undefined ? "?" : (1e3 * computeSeconds).toFixed(2)} ms of compute a step`
)

const cluster = clusterOf(rates[0]!)
const ours = new Crew<Request, Answer>(
  () =>
    new Runners(
      startRanks(
        ranks,
        cluster,
        ["bench/cluster/time-to-loss-rank.ts", "--backend", options.backend],
        "pipe",
        { env }
      ),
      graceMillis
    )
)
const theirs = new Crew<ForTorch & HowLong, Answer>(
  () =>
    new Runners(
      startRanks(ranks, cluster, ["bench/cluster/torch-ddp.py", options.backend], "pipe", {
        program: [options.python],
        env
      }),
      graceMillis
    )
)
try {
  for (const [index, point] of points.entries()) {
    const rate = rates[index]!
    for (let rank = 0; rank < ranks; rank++) cluster.setRates(rank, { up: rate, down: rate })
    const linkSeconds = gradientBytes / rate
    const share =
      computeSeconds === undefined ? "" : `, ${(linkSeconds / computeSeconds).toFixed(1)} times compute`
    say(`${point}: DDP's gradients take the link ${(1e3 * linkSeconds).toFixed(1)} ms a step${share}`)
    for (const variant of variants) {
      const row = await measure(variant, { point, profile, ours, theirs, forTorch }).catch(
        (error: unknown): Row => ({
          point,
          variant,
          steps: 0,
          predictedSeconds: undefined,
          outcome: { error: messageOf(error) }
        })
      )
      rows.push(row)
      say(rowLine(row))
      keep({ computeSeconds, gradientBytes })
    }
  }
} finally {
  await Promise.all([ours.end(), theirs.end()])
  cluster.close()
}
const { text, complete } = reportOf(rows, base)
keep({ computeSeconds, gradientBytes, report: text.split("\n") })
console.log(`\n${text}\n${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`)
for (const point of points) {
  const chart = chartOf(rows.filter((row) => row.point === point))
  if (chart !== undefined) writeFileSync(path.join(out, `${point.replaceAll(/\W/gu, "-")}.svg`), chart)
}
process.exitCode = complete ? 0 : 1
