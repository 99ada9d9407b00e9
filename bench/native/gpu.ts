// All figures that the documentation cites from a GPU, in one command: tests on the backend, both machines' agreement, times beside
// PyTorch's, the loss curve, offloaded experts, compute-sanitizer. Each part has a time limit of its own, and one that fails does not stop
// the others. Outcomes go to a folder as JSON, part by part as they end, and a table is printed.
//   npx node bench/native/gpu.ts --out gpu                        everything, in order
//   npx node bench/native/gpu.ts --out gpu --only step-4,step-32  or --skip; --list says what there is
//   npx node bench/native/gpu.ts --out gpu --budget-seconds 580   ends by then; begins no part with less than a third of its time left
//   npx node bench/native/gpu.ts --out gpu --backend cpu          the parts that a processor can have, at toy sizes: to try the command
// Exit code 0 when all that could be run went well, 1 when a part did not, 2 without a GPU or for an option that is not there.
import { spawn, spawnSync } from "node:child_process"
import { createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { availableParallelism, cpus } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { alignColumns } from "../../scenarios/table.ts"
import type { Part, Step } from "./gpu-part.ts"
import { partsOf } from "./gpu-parts.ts"
import { backendOf, namesOf, optionsOf, positiveNumber } from "../numbers.ts"

interface StepOutcome {
  readonly name: string
  readonly command: string
  readonly outcome: "ok" | "failed" | "out of time" | "not run"
  /** Why not, or what came out, in a line. */
  readonly said: string
  readonly seconds: number
  readonly result?: unknown
  /** The last lines of what it printed. */
  readonly lines?: ReadonlyArray<string>
}

interface PartOutcome {
  readonly part: string
  readonly cited: string
  readonly outcome: StepOutcome["outcome"]
  readonly seconds: number
  readonly steps: ReadonlyArray<StepOutcome>
}

const root = fileURLToPath(new URL("../..", import.meta.url))
const keptLines = 200

const refuse = (text: string): never => {
  process.stderr.write(`${text}\n`)
  process.exit(2)
}

const { values: parsed } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    out: { type: "string", default: "gpu" },
    only: { type: "string" },
    skip: { type: "string" },
    "budget-seconds": { type: "string", default: "1000000" },
    list: { type: "boolean", default: false }
  }
})
const [out, backend] = [path.resolve(parsed.out), backendOf(parsed.backend)]
const budgetSeconds = positiveNumber("--budget-seconds", parsed["budget-seconds"])
process.chdir(root)

const parts = partsOf({ backend, out })
const names = parts.map(({ name }) => name)
const only = parsed.only === undefined ? names : namesOf("--only", parsed.only, names)
const skipped = parsed.skip === undefined ? [] : namesOf("--skip", parsed.skip, names)
const chosen = parts.filter(({ name }) => only.includes(name) && !skipped.includes(name))

/** What a command that succeeds prints; undefined where it does not. */
const printed = (command: string, ...args: ReadonlyArray<string>): string | undefined => {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8" })
  return status === 0 ? stdout.trim() : undefined
}

if (parsed.list) {
  const rows = parts.map(({ name, limitSeconds, gpus = 1, onCpu, cited, steps }) => [
    name,
    `${limitSeconds} s`,
    `${gpus} GPU${gpus > 1 ? "s" : ""}${onCpu ? ", or --backend cpu" : ""}`,
    cited,
    steps.map((step) => step.name).join(", ")
  ])
  console.log(alignColumns(rows, () => false).join("\n"))
  process.exit(0)
}

const gpus = (
  printed("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader") ?? ""
)
  .split("\n")
  .filter((line) => line !== "")
if (backend === "cuda" && gpus.length === 0)
  refuse("no GPU: nvidia-smi tells of none; --backend cpu tries the parts that a processor can have")

const known = new Map<string, string | undefined>()
/** Why a step cannot run here; undefined when it can. */
const missing = (need: string): string | undefined => {
  if (need === "cuda") return gpus.length > 0 ? undefined : "no GPU"
  if (need === "cudnn") {
    const told = printed(process.execPath, "exec/cli.ts", "info")?.split("\n") ?? []
    return told.some((line) => /attention by .*cuDNN \d/u.test(line))
      ? undefined
      : (told.find((line) => /^ +cuDNN/u.test(line))?.trim() ?? "exec info tells of no cuDNN")
  }
  if (!known.has(need)) {
    const module = ["torch", "transformers", "safetensors", "numpy"].includes(need)
    const there = module
      ? printed("python3", "-c", `import ${need}; print(${need}.__version__)`)
      : printed("sh", "-c", `command -v ${need}`)
    known.set(
      need,
      there === undefined ? `${module ? "python3 has no module" : "no program"} ${need}` : undefined
    )
  }
  return known.get(need)
}

const conditions = () => ({
  gpus,
  backend,
  host: `${cpus()[0]?.model ?? "processor"}, ${availableParallelism()} cores`,
  node: process.versions.node,
  commit: printed("git", "rev-parse", "HEAD"),
  nvcc: printed("nvcc", "--version")?.split("\n").at(-1),
  torch: printed("python3", "-c", "import torch; print(torch.__version__, torch.version.cuda)"),
  transformers: printed("python3", "-c", "import transformers; print(transformers.__version__)"),
  info: printed(process.execPath, "exec/cli.ts", "info")?.split("\n")
})

interface Ended {
  readonly code: number | null
  readonly timedOut: boolean
  readonly text: string
}

/** In a process group of its own, which goes as a whole when the time is over. */
const runCommand = (step: Step, log: string, seconds: number): Promise<Ended> =>
  new Promise((resolve) => {
    const [program, ...args] = step.command
    const child = spawn(program === "node" ? process.execPath : program!, args, {
      env: { ...process.env, ...step.env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true
    })
    const file = createWriteStream(log, { flags: "a" })
    file.write(`$ ${step.command.join(" ")}\n`)
    let text = ""
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
    }, seconds * 1000)
    child.stdout.on("data", (chunk) => {
      text += String(chunk)
      file.write(chunk)
    })
    child.stderr.on("data", (chunk) => file.write(chunk))
    const done = (code: number | null, more = ""): void => {
      clearTimeout(timer)
      file.end()
      resolve({ code, timedOut, text: text + more })
    }
    child.on("error", (error) => done(127, error.message))
    child.on("close", (code) => done(code))
  })

const asJson = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

const runStep = async (part: Part, step: Step, seconds: number): Promise<StepOutcome> => {
  const about = { name: step.name, command: step.command.join(" ") }
  const lacking = (step.needs ?? []).flatMap((need) => missing(need) ?? [])
  if (lacking.length > 0) return { ...about, outcome: "not run", said: lacking.join(", "), seconds: 0 }
  if (seconds <= 0)
    return { ...about, outcome: "out of time", said: "no time was left of the part's", seconds: 0 }
  const began = performance.now()
  const { code, timedOut, text } = await runCommand(step, path.join(out, `${part.name}.log`), seconds)
  const took = (performance.now() - began) / 1000
  const stored =
    step.result !== undefined && existsSync(step.result) ? readFileSync(step.result, "utf8") : undefined
  const result = asJson(stored ?? text)
  const lines = text.trimEnd().split("\n")
  const last = lines.at(-1) ?? ""
  const judged = step.judge?.(text)
  const told =
    judged?.said ??
    (result === undefined || step.tell === undefined ? last : step.tell(result as Record<string, unknown>))
  const outcome = timedOut ? "out of time" : code === 0 && judged?.ok !== false ? "ok" : "failed"
  return {
    ...about,
    outcome,
    said:
      outcome === "ok"
        ? told
        : `${told} (${timedOut ? `ended after ${took.toFixed(0)} s` : `exit code ${code}`}; ${part.name}.log)`,
    seconds: took,
    ...(result === undefined ? { lines: lines.slice(-keptLines) } : { result })
  }
}

const notRun = ({ name, cited }: Part, said: string): PartOutcome => ({
  part: name,
  cited,
  outcome: "not run",
  seconds: 0,
  steps: [{ name: "", command: "", outcome: "not run", said, seconds: 0 }]
})

/** The worst of what its steps came to; parts of which nothing could be run were not run. */
const overall = (steps: ReadonlyArray<StepOutcome>): PartOutcome["outcome"] => {
  for (const bad of ["failed", "out of time"] as const)
    if (steps.some(({ outcome }) => outcome === bad)) return bad
  return steps.some(({ outcome }) => outcome === "ok") ? "ok" : "not run"
}

const runPart = async (part: Part, leftSeconds: number): Promise<PartOutcome> => {
  if (backend !== "cuda" && !part.onCpu) return notRun(part, "needs a GPU")
  if (backend === "cuda" && (part.gpus ?? 1) > gpus.length)
    return notRun(
      part,
      `needs ${part.gpus} GPUs; here ${gpus.length === 1 ? "is one" : `are ${gpus.length}`}`
    )
  const most = backend === "cuda" ? part.limitSeconds : 4 * part.limitSeconds
  if (leftSeconds < most / 3)
    return notRun(
      part,
      `may take ${most} s, and ${Math.max(0, leftSeconds).toFixed(0)} s were left of the budget`
    )
  const limit = Math.min(most, leftSeconds)
  const began = performance.now()
  const steps: Array<StepOutcome> = []
  for (const step of part.steps) {
    const done = await runStep(part, step, limit - (performance.now() - began) / 1000)
    steps.push(done)
    process.stderr.write(`${part.name}, ${done.name}: ${done.outcome}; ${done.said}\n`)
  }
  const seconds = (performance.now() - began) / 1000
  return { part: part.name, cited: part.cited, outcome: overall(steps), seconds, steps }
}

mkdirSync(out, { recursive: true })
const began = performance.now()
const outcomes: Array<PartOutcome> = []
let here = conditions()
for (const part of chosen) {
  const outcome = await runPart(part, budgetSeconds - (performance.now() - began) / 1000)
  outcomes.push(outcome)
  if (part.name === "build") here = conditions()
  writeFileSync(
    path.join(out, `${part.name}.json`),
    JSON.stringify({ conditions: here, ...outcome }, undefined, 1)
  )
  writeFileSync(path.join(out, "summary.json"), JSON.stringify({ conditions: here, outcomes }, undefined, 1))
}
for (const gpu of gpus) console.log(gpu)
console.log(
  `Node ${here.node}, torch ${here.torch ?? "not here"}, ${here.nvcc ?? "no nvcc"}, commit ${here.commit ?? "unknown"}`
)
console.log(here.host)
const rows = outcomes.flatMap(({ part, outcome, seconds, steps }) => [
  [part, outcome, `${seconds.toFixed(0)} s`, ""],
  ...steps.map(({ name, outcome: own, said }) => ["", own, "", name === "" ? said : `${name}: ${said}`])
])
for (const line of alignColumns(rows, () => false)) console.log(line)
process.exitCode = outcomes.some(({ outcome }) => outcome === "failed" || outcome === "out of time") ? 1 : 0
