// PyTorch's own steps beside those of bench/cluster/what-if.ts: the same model on as many ranks, in the same namespaces over the same
// links, started (torch-steps.py) when ours have ended, and ended before ours start again. Knows nothing of what is predicted.
import { spawnSync } from "node:child_process"
import * as Effect from "effect/Effect"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { Crew, graceMillis } from "./crew.ts"
import { huggingFaceModel, type HuggingFaceModel } from "./hugging-face.ts"
import type { Cluster } from "./namespaces.ts"
import { Runners, startRanks } from "./runners.ts"
import type { Layout, Point } from "./what-if-choices.ts"
import type { TorchMode, TorchRow, TorchSteps } from "./what-if-report.ts"

/** What PyTorch has for a layout: whole models under DDP, models in parts under HSDP. */
export const torchModeOf = ({ sharded }: Pick<Layout, "sharded">): TorchMode => (sharded ? "hsdp" : "ddp")

/** Its steps have no middle that a link could drop in: how many there are is settled while they run. */
const torchPoints = (points: ReadonlyArray<Point>): ReadonlyArray<Point> =>
  points.filter(({ host0 }) => host0 !== "drop")

const modules = ["torch", "transformers"]

/** Why this Python cannot run PyTorch's steps, and what would help; undefined where it can. Imports nothing. */
export const whyNoTorch = (python: string): string | undefined => {
  const find = `import importlib.util as u; print(*(m for m in ${JSON.stringify(modules)} if u.find_spec(m) is None))`
  const { error, status, stdout, stderr } = spawnSync(python, ["-c", find], { encoding: "utf8" })
  const help = `"pip install ${modules.join(" ")}" or "apt-get install python3-torch", or name another Python by --python`
  if (error !== undefined) return `${error.message}; ${help}`
  if (status !== 0) return `${python} ended with code ${status}: ${stderr.trim()}; ${help}`
  const missing = stdout.trim()
  return missing === "" ? undefined : `${python} has no module ${missing.replaceAll(" ", ", ")}; ${help}`
}

/** What PyTorch's DDP sends here. */
const wires = ["bfloat16", "float32"]

/** The model of a scenario's file for PyTorch. Rejects with an Error where PyTorch's step would be another. */
export const torchModelOf = async (
  file: string,
  mode: TorchMode,
  wire: string
): Promise<HuggingFaceModel> => {
  const scenario = await Effect.runPromise(loadScenario(file))
  if (scenario.task !== "data-parallel") throw new Error(`task: ${scenario.task}; expected data-parallel`)
  const { training, activations, model } = scenario
  if ((training?.accumulate ?? 1) > 1)
    throw new Error(
      `training.accumulate: ${training!.accumulate}; expected 1, as PyTorch's step is of one batch`
    )
  const recompute = activations?.recompute ?? "none"
  if (recompute !== "none")
    throw new Error(`activations.recompute: ${recompute}; expected none, as PyTorch recomputes nothing here`)
  if (mode === "ddp" && !wires.includes(wire))
    throw new Error(`--wire ${wire}: expected ${wires.join(" or ")}, which PyTorch's DDP is asked to send`)
  return huggingFaceModel(model)
}

/** What torch-steps.py is asked for each run. */
interface Asked {
  /** Of steps that count. */
  readonly measureSeconds: number
  /** That steps may take until they are as long as each other. */
  readonly warmUpSeconds: number
}

export interface BesideTorch {
  readonly python: string
  readonly backend: string
  readonly model: HuggingFaceModel
  /** Of DDP's gradients on GPUs. */
  readonly wire: string
  /** Seconds that are left of those that were given. */
  readonly secondsLeft: () => number
  /** Why there is no PyTorch; undefined where there is. */
  readonly missing: string | undefined
}

interface At {
  readonly layout: Layout
  readonly points: ReadonlyArray<Point>
  readonly cluster: Cluster | undefined
  readonly env: Readonly<Record<string, string>>
  /** Gives the links that point's rates. */
  readonly shape: (point: Point) => void
  /** What a step of about that length takes; undefined where nothing tells. */
  readonly stepSecondsNear: (point: Point) => number | undefined
  readonly heard: (row: TorchRow) => void
}

/** Processes that start: imports, first connections. */
const startSeconds = 90
/** Of a step that nothing tells of: no longer than this. */
const longStepSeconds = 5
/** With less left no run is begun. */
const leastSeconds = 20

/** How long a run may take whose steps are so long, and of that how long it may warm up. */
export const patienceOf = (stepSeconds: number) => ({
  warmUpSeconds: 10 + 15 * stepSeconds,
  runSeconds: startSeconds + 60 * stepSeconds
})

/** Steps of PyTorch at these points; its ranks have ended then. A run that fails is a row, and the next begins with new ranks. */
export const torchStepsAt = async (
  { python, backend, model, wire, secondsLeft, missing }: BesideTorch,
  { layout, points, cluster, env, shape, stepSecondsNear, heard }: At
): Promise<void> => {
  const { ranks, hosts, perHost } = layout
  const mode = torchModeOf(layout)
  const asked = JSON.stringify({ ...model, mode, hosts, wire })
  const command = ["bench/cluster/torch-steps.py", backend, asked]
  const crew = new Crew<Asked, TorchSteps>(
    () =>
      new Runners(
        startRanks(ranks, cluster, command, "pipe", { perHost, env, program: [python] }),
        graceMillis
      )
  )
  try {
    for (const point of torchPoints(points)) {
      const row = { ranks, point: point.name, mode }
      if (missing !== undefined) heard({ ...row, outcome: { error: missing } })
      else if (secondsLeft() < leastSeconds) heard({ ...row, outcome: undefined })
      else {
        shape(point)
        const { warmUpSeconds, runSeconds } = patienceOf(stepSecondsNear(point) ?? longStepSeconds)
        const began = performance.now()
        const outcome = await crew.run(
          { measureSeconds: 3, warmUpSeconds },
          Math.min(runSeconds, secondsLeft())
        )
        heard({ ...row, outcome, ranSeconds: (performance.now() - began) / 1000 })
      }
    }
  } finally {
    await crew.end()
  }
}
