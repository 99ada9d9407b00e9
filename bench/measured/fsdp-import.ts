// Makes of what fsdp_record.py has recorded the profiles that ship and the table that `sim validate` holds the simulator to:
//   npx node bench/measured/fsdp-import.ts h200x2 out/ out-cubic/
// and prints what the simulator makes of each.
// The first folder has traces and NVLink; further ones may have sockets under another congestion control. Each step is foretold
// from the local step of its own model, with as many processes at once as train, and collectives alone. Hooks, calls and the
// slowdown of kernels come from the *other* model's traces: no step gives anything to its own prediction.
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { Loader } from "../../scenarios/load.ts"
import { shardedH200 } from "../../sim/validate/sharded-h200.ts"
import { importCsv, importKinetoFile, writeProfile, type ImportReport } from "../../traces/index.ts"
import type { RecordedSteps, Recording } from "./fsdp-recording.ts"
import {
  collectivesCsv,
  congestionOf,
  localSeconds,
  models,
  partsOf,
  peakBytesOf,
  secondsOf,
  slowdownBeside,
  waitedSecondsOf,
  type Model,
  type Mode
} from "./fsdp-recording.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const [machine, ...folders] = process.argv.slice(2)
if (machine === undefined || folders.length === 0) {
  process.stderr.write(
    "a name for the machine and folders of fsdp_record.py, please: h200x2 out/ out-cubic/\n"
  )
  process.exit(2)
}

const recordings = folders.map((folder) => ({
  folder,
  recording: JSON.parse(readFileSync(path.join(folder, "fsdp.json"), "utf8")) as Recording
}))
const { folder, recording } = recordings[0]!
const { torch, nccl, device } = recording.described?.nvlink?.[0] ?? {}

const profile = (name: string): string => path.join(root, "traces/profiles", `${name}-${machine}.arrow`)
/** As scenarios of scenarios/measured name it. */
const named = (name: string): string => `../../traces/profiles/${name}-${machine}.arrow`

const traces = mkdtempSync(path.join(tmpdir(), "fsdp-"))
execFileSync("tar", ["xf", path.resolve(folder, "traces.tar")], { cwd: traces })
const traceOf = (model: Model, mode: Mode): string | undefined => {
  const found = partsOf(recording, "trace").find((part) => part.model === model && part.mode === mode)
  return found?.file === undefined ? undefined : path.join(traces, found.file)
}

const imported = (
  model: Model,
  mode: Mode,
  unprofiledStepSeconds: number,
  more: Readonly<Record<string, unknown>> = {}
): Promise<ImportReport> =>
  Effect.runPromise(
    importKinetoFile(traceOf(model, mode)!, {
      name: `${model} ${mode}, ${machine}`,
      conditions: `${recording.date}, two ranks of one machine`,
      unprofiledStepSeconds,
      ...more
    })
  )

/** Hooks and calls of a mode, and what collectives slow kernels by, as a model's traces have them. */
interface FromTraces {
  readonly hookSeconds: number
  readonly collectiveSeconds: number
  readonly slowdown: number | undefined
}

const steps = (link: string, model: Model, mode: Mode): RecordedSteps | undefined =>
  partsOf(recording, "steps").find(
    (part) => part.link === link && part.model === model && part.mode === mode && part.processes === undefined
  )

const local = new Map<Model, ImportReport>()
const under = new Map<string, FromTraces>()
for (const model of models) {
  const alone = localSeconds(recording, model, 2)
  const report = await imported(model, "local", alone)
  local.set(model, report)
  await Effect.runPromise(writeProfile(profile(model), report.profile))
  const fsdp = await imported(model, "fsdp", secondsOf(steps("nvlink", model, "fsdp")!))
  await Effect.runPromise(writeProfile(profile(`${model}-fsdp`), fsdp.profile))
  const ofFsdp: FromTraces = {
    hookSeconds: fsdp.profile.host?.hookSeconds ?? 0,
    collectiveSeconds: fsdp.profile.host?.collectiveSeconds ?? 0,
    slowdown: fsdp.communication?.slowdown
  }
  under.set(`${model} fsdp`, ofFsdp)
  const ddp = traceOf(model, "ddp")
  const both =
    ddp === undefined
      ? undefined
      : await imported(model, "local", alone, {
          ddp,
          ddpStepSeconds: secondsOf(steps("nvlink", model, "ddp")!)
        })
  under.set(
    `${model} ddp`,
    both === undefined
      ? ofFsdp
      : {
          hookSeconds: both.profile.host?.hookSeconds ?? 0,
          collectiveSeconds: both.profile.host?.collectiveSeconds ?? 0,
          slowdown: ofFsdp.slowdown
        }
  )
}

// Collectives alone: of NVLink, and of sockets that are not shaped, for each congestion control.
for (const [index, { recording: one }] of recordings.entries())
  for (const link of ["nvlink", "unshaped"] as const) {
    const csv = collectivesCsv(one, link)
    if (csv === undefined) continue
    const name = link === "nvlink" ? "nccl-nvlink" : `nccl-sockets-${congestionOf(one)}`
    const report = await Effect.runPromise(
      importCsv(csv, {
        name: `${name}, ${machine}`,
        file: `${path.basename(folders[index]!)}.csv`,
        ...(device === undefined ? {} : { device })
      })
    )
    await Effect.runPromise(writeProfile(profile(name), report.profile))
  }

const us = (seconds: number): string => `${(seconds * 1e6).toFixed(1)}us`
const launch = local.get("gpt2")!.profile.host?.launchSeconds ?? 0
const otherOf = (model: Model): Model => (model === "gpt2" ? "llama1b" : "gpt2")

const architecture = {
  gpt2: "{gpt2: {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 4}}",
  llama1b:
    "{llama: {layers: 16, width: 2048, heads: 32, kvHeads: 8, ffnWidth: 5632, vocabulary: 32000, context: 2048, batch: 4}}"
}

const worldOf = (one: Recording, { link, mode }: RecordedSteps, slowdown: number | undefined) => {
  if (mode === "local") return ["world={ranks: 1}", "collectives={}"]
  const slowed = slowdown === undefined ? "" : `, slowdown: ${slowdown.toFixed(3)}`
  const table = link === "nvlink" ? named("nccl-nvlink") : named(`nccl-sockets-${congestionOf(one)}`)
  const collectives = `collectives={measured: ${table}${slowed}}`
  if (link === "nvlink") return ["world={ranks: 2, ranksPerNode: 2}", collectives]
  if (link === "unshaped") return ["world={ranks: 2}", collectives]
  return [`world={ranks: 2, links: {inter: {bandwidth: ${link}, mtu: 9000}}}`, collectives]
}

const setOf = (one: Recording, row: RecordedSteps, waited: boolean): ReadonlyArray<string> => {
  const { model, mode, link } = row
  const from = mode === "local" ? undefined : under.get(`${otherOf(model)} ${mode}`)!
  const slowdown = link === "nvlink" ? from?.slowdown : slowdownBeside(one, link)
  const reads = waited ? ", read: 20us, readEachStep: true" : ""
  return [
    `model.profile=${named(model)}`,
    `activations.of=${architecture[model]}`,
    ...worldOf(one, row, slowdown),
    ...(mode === "fsdp" ? ["activations.by=eager", "shard={within: world, parameterDtype: bfloat16}"] : []),
    ...(from === undefined
      ? ["host=none"]
      : [
          `host={mode: eager, launch: ${us(launch)}, collective: ${us(from.collectiveSeconds)}, hook: ${us(from.hookSeconds)}${reads}}`
        ])
  ]
}

const rows = recordings.flatMap(({ recording: one }) =>
  partsOf(one, "steps")
    .filter(({ processes }) => processes === undefined || processes === 2)
    .flatMap((row) => {
      const { model, mode } = row
      const shaped = row.link !== "nvlink" && row.link !== "none"
      const link = shaped ? `${row.link}, ${congestionOf(one)}` : row.link
      const claim =
        mode === "local"
          ? {}
          : { claim: shaped ? (row.link === "unshaped" ? "unshaped" : "shaped") : "nvlink" }
      const waited = waitedSecondsOf(row)
      const peakBytes = peakBytesOf(row)
      const first = {
        link,
        model,
        mode,
        stepSeconds: secondsOf(row),
        // Over sockets all models are there at once.
        ...(shaped || peakBytes === undefined ? {} : { peakBytes }),
        set: setOf(one, row, false),
        ...claim,
        ...(mode === "local" ? { given: true } : {})
      }
      if (waited === undefined || mode === "local") return [first]
      return [
        first,
        {
          link,
          model,
          mode,
          shown: "waited for",
          stepSeconds: waited,
          set: setOf(one, row, true),
          claim: "waited"
        }
      ]
    })
)

const table = {
  source: `bench/measured/fsdp_record.py, ${recording.date}: two ${device ?? "GPUs"} of one machine, a rank each, PyTorch ${torch ?? "?"}, NCCL ${nccl ?? "?"}: GPT-2 124M at 4 x 1024 and a Llama of 852,559,872 parameters at 4 x 2048; local and DDP in bf16 autocast with float32 parameters (bucket_cap_mb=25, gradient_as_bucket_view), FSDP2 of every block and the root (param_dtype bf16, reduce_dtype float32); fused AdamW; medians of steps, mean of the two ranks; local: both at once, without communication; sockets between network namespaces, MTU 9000, token bucket both ways`,
  // All of it that is of a machine, each step changes.
  scenario: "../measured/sharded-h100.yaml",
  steps: rows
}
const file = path.join(root, "scenarios/validate", `sharded-${machine}.measured.json`)
writeFileSync(file, `${JSON.stringify(table, null, 2)}\n`)

const { claims, lines } = await Effect.runPromise(
  Effect.flatMap(shardedH200(`sharded-${machine}`, path.basename(file)).open, (opened) =>
    opened.check(new Loader(), () => undefined)
  )
)
const told = claims.map(({ claim, holds, found }) => `${holds ? "holds" : "FAILS"}  ${claim}: ${found}`)
process.stdout.write(`${[`${file}: ${rows.length} steps`, ...lines, ...told].join("\n")}\n`)
