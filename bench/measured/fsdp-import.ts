// Makes of what fsdp_record.py has recorded the profiles that ship and the table that `sim validate` holds the simulator to:
//   npx node bench/measured/fsdp-import.ts h200x2-untraced out/
// and prints what the simulator makes of each. What a step is predicted from was settled before the recording was made:
//
// - Its own model's local steps, by both processes at once, in autocast for DDP; for FSDP2 forward and backward passes with 16-bit
//   parameters, and the optimizer of 32-bit ones.
// - Its host: own local steps of few tokens, the longer of each pair of the two ranks' (`slowerSeconds`), before, between and after
//   DDP and FSDP2. They say what a launch costs, and how long a step takes whose device waits for its host.
// - What DDP and FSDP2 add to a host: steps of few tokens of the *other* model under them, less its local ones. DDP's by calls and
//   gradients as that model's traces have them, FSDP2's by calls of collectives.
// - Where steps were recorded in turns, a few of each kind over and over, medians over rounds of all three, and what DDP and FSDP2 add
//   in each round: a host is as fast as it is then.
// - Collectives alone, and how much slower kernels are beside them: over NVLink, over sockets that are not shaped, and the shaped
//   link's rate. Each step over a shaped link once more from collectives measured on that link.
// - The option `gradient_as_bucket_view`, as recorded.
//
// The tables of h200x2-cubic, -turns and -untraced were made by an earlier rule, and stay as they were predicted: what FSDP2 adds was
// split between calls and the tensors that these carry, as its annotations in the trace have it; and in turns, what DDP and FSDP2 add
// was taken as many times as long as this model's launches take beside the other's. It was changed once the last of them was known.
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { median } from "../../core/median.ts"
import type { Profile } from "../../core/profile.ts"
import { Loader } from "../../scenarios/load.ts"
import { shardedH200Recorded } from "../../sim/validate/sharded-h200.ts"
import { importCsv, importKinetoFile, writeProfile, type ImportReport } from "../../traces/index.ts"
import type { RecordedSteps, Recording } from "./fsdp-recording.ts"
import {
  collectivesCsv,
  congestionOf,
  fewSeconds,
  fsdpSecondsPerCall,
  hasSockets,
  hasTurns,
  hostSeconds,
  models,
  partsOf,
  peakBytesOf,
  secondsOf,
  slowdownBeside,
  slowerSeconds,
  sourceOf,
  stepsOf,
  turnsOf,
  waitedSecondsOf,
  type Mode,
  type Model
} from "./fsdp-recording.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const [machine, folder] = process.argv.slice(2)
if (machine === undefined || folder === undefined) {
  process.stderr.write(
    "a name for the machine and a folder of fsdp_record.py, please: h200x2-untraced out/\n"
  )
  process.exit(2)
}

const recording = JSON.parse(readFileSync(path.join(folder, "fsdp.json"), "utf8")) as Recording
const { device } = recording.described?.nvlink?.[0] ?? {}
const congestion = congestionOf(recording)

const profile = (name: string): string => path.join(root, "traces/profiles", `${name}-${machine}.arrow`)
/** As scenarios of scenarios/measured name it. */
const named = (name: string): string => `../../traces/profiles/${name}-${machine}.arrow`

const traces = mkdtempSync(path.join(tmpdir(), "fsdp-"))
execFileSync("tar", ["xf", path.resolve(folder, "traces.tar")], { cwd: traces })
const traceOf = (model: Model, mode: Mode, few: boolean): string => {
  const found = partsOf(recording, "trace").find(
    (part) => part.model === model && part.mode === mode && (part.few ?? false) === few
  )
  if (found?.file === undefined)
    throw new RangeError(`no trace of ${model}, ${mode}${few ? ", few tokens" : ""} was recorded`)
  return path.join(traces, found.file)
}

const imported = (
  model: Model,
  mode: Mode,
  few: boolean,
  unprofiledStepSeconds: number,
  more: Readonly<Record<string, unknown>> = {}
): Promise<ImportReport> =>
  Effect.runPromise(
    importKinetoFile(traceOf(model, mode, few), {
      name: `${model} ${mode}, ${machine}`,
      conditions: `${recording.date}, two ranks of one machine`,
      unprofiledStepSeconds,
      ...more
    })
  )

/** The local step's profile; where its device waits for its host, as long as the host takes. */
const localProfile = async (model: Model, mode: "local" | "local16"): Promise<Profile> => {
  const seconds = slowerSeconds(stepsOf(recording, { model, mode, few: false }))
  const report = await imported(model, mode, false, seconds)
  const busy = report.profile.deviceBusySeconds
  if (seconds <= 1.05 * busy) return report.profile
  const own = await imported(model, mode, false, Math.max(busy, hostSeconds(recording, model, mode)))
  return own.profile
}

/** Of FSDP2: the device's passes with 16-bit parameters, the optimizer of 32-bit ones. */
const underFsdp = (local: Profile, local16: Profile): Profile => {
  const layers = local16.layers.map((layer, index) => {
    const other = local.layers[index]
    if (other?.name !== layer.name)
      throw new RangeError(`layer ${index} is ${layer.name} in 16 bits and ${other?.name} in autocast`)
    return { ...layer, optimizer: other.optimizer }
  })
  const sum = ({ layers: all }: Pick<Profile, "layers">): number =>
    all.reduce((seconds, { optimizer }) => seconds + optimizer.busySeconds, 0)
  const more = sum(local) - sum(local16)
  const unprofiled = local16.unprofiledStepSeconds!
  const waits = unprofiled > 1.05 * local16.deviceBusySeconds
  return {
    ...local16,
    layers,
    parameters: local.parameters,
    deviceBusySeconds: local16.deviceBusySeconds + more,
    stepSeconds: local16.stepSeconds + more,
    unprofiledStepSeconds: waits ? Math.max(unprofiled, local16.deviceBusySeconds + more) : unprofiled + more
  }
}

interface HostCosts {
  readonly hookSeconds: number
  readonly collectiveSeconds: number
}

const ddpHost = async (model: Model): Promise<HostCosts> => {
  const { profile: found } = await imported(model, "local", true, hostSeconds(recording, model, "local"), {
    ddp: traceOf(model, "ddp", true),
    ddpStepSeconds: fewSeconds(recording, model, "ddp")
  })
  return {
    hookSeconds: found.host?.hookSeconds ?? 0,
    collectiveSeconds: found.host?.collectiveSeconds ?? 0
  }
}

/** All that FSDP2 adds to a step, by calls: gathers and reduce-scatters, as many as the trace has. */
const fsdpHost = async (model: Model): Promise<HostCosts> => {
  const { sharded } = await imported(model, "fsdp", true, fewSeconds(recording, model, "fsdp"))
  if (sharded === undefined) throw new RangeError(`the trace of ${model} under FSDP2 shows no units`)
  const calls = sharded.units.reduce((sum, { gathers, scatters }) => sum + gathers.calls + scatters.calls, 0)
  return { hookSeconds: 0, collectiveSeconds: fsdpSecondsPerCall(recording, model, calls) }
}

const launch = new Map<string, number>()
const added = new Map<string, HostCosts>()
for (const model of models) {
  const [local, local16] = [await localProfile(model, "local"), await localProfile(model, "local16")]
  await Effect.runPromise(writeProfile(profile(model), local))
  await Effect.runPromise(writeProfile(profile(`${model}-16`), underFsdp(local, local16)))
  for (const mode of ["local", "local16"] as const) {
    const few = await imported(model, mode, true, hostSeconds(recording, model, mode))
    launch.set(`${model} ${mode}`, few.profile.host?.launchSeconds ?? 0)
  }
  added.set(`${model} ddp`, await ddpHost(model))
  added.set(`${model} fsdp`, await fsdpHost(model))
}

const tableOf = (link: string): string => `nccl-${link}`
const links = [...new Set(partsOf(recording, "collectives").map(({ link }) => link))]
for (const link of links) {
  const report = await Effect.runPromise(
    importCsv(collectivesCsv(recording, link)!, {
      name: `${tableOf(link)}, ${machine}`,
      file: `${link}.csv`,
      ...(device === undefined ? {} : { device })
    })
  )
  await Effect.runPromise(writeProfile(profile(tableOf(link)), report.profile))
}

const us = (seconds: number): string => `${(seconds * 1e6).toFixed(1)}us`
const otherOf = (model: Model): Model => (model === "gpt2" ? "llama1b" : "gpt2")

const architecture = {
  gpt2: "{gpt2: {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 4}}",
  llama1b:
    "{llama: {layers: 16, width: 2048, heads: 32, kvHeads: 8, ffnWidth: 5632, vocabulary: 32000, context: 2048, batch: 4}}"
}

/** `measured`: from collectives measured on the link itself. */
const worldOf = (link: string, measured: boolean): ReadonlyArray<string> => {
  const slowdown = slowdownBeside(recording, link)
  const slowed = slowdown === undefined ? "" : `, slowdown: ${slowdown.toFixed(3)}`
  const from = link === "nvlink" || link === "unshaped" || measured ? link : "unshaped"
  const collectives = `collectives={measured: ${named(tableOf(from))}${slowed}}`
  if (link === "nvlink") return ["world={ranks: 2, ranksPerNode: 2}", collectives]
  if (from === link) return ["world={ranks: 2}", collectives]
  return [`world={ranks: 2, links: {inter: {bandwidth: ${link}, mtu: 9000}}}`, collectives]
}

const setOf = (
  { model, mode, link }: RecordedSteps,
  how: { readonly waited?: true; readonly measured?: true } = {}
): ReadonlyArray<string> => {
  const profiled = `model.profile=${named(mode === "fsdp" ? `${model}-16` : model)}`
  // training.py takes the loss alone of what the model returns.
  const base = [profiled, `activations.of=${architecture[model]}`, "activations.output=dropped"]
  if (mode === "local") return [...base, "world={ranks: 1}", "collectives={}", "host=none"]
  const { collectiveSeconds, hookSeconds } = added.get(`${otherOf(model)} ${mode}`)!
  const alone = mode === "fsdp" ? "local16" : "local"
  const launched = launch.get(`${model} ${alone}`)!
  const reads = how.waited ? ", read: 20us, readEachStep: true" : ""
  return [
    ...base,
    ...worldOf(link, how.measured === true),
    ...(mode === "fsdp"
      ? ["activations.by=eager", "shard={within: world, parameterDtype: bfloat16, copies: true}"]
      : [
          `activations.gradientAsBucketView=${String(recording.conditions?.gradient_as_bucket_view === true)}`
        ]),
    `host={mode: eager, launch: ${us(launched)}, collective: ${us(collectiveSeconds)}, hook: ${us(hookSeconds)}${reads}}`
  ]
}

const rows = partsOf(recording, "steps")
  .filter(
    ({ processes = 2, few = false, early = false, mode }) =>
      processes === 2 && !few && !early && mode !== "local16"
  )
  .flatMap((row) => {
    const { model, mode, link } = row
    const local = mode === "local"
    const sockets = link !== "nvlink" && !local
    const shown = sockets ? `${link}, ${congestion}` : link
    const shaped = sockets && link !== "unshaped"
    const waited = local ? undefined : waitedSecondsOf(row)
    const peakBytes = peakBytesOf(row)
    const of = { link: shown, model, mode }
    const turns = link === "nvlink" ? turnsOf(recording, { model, mode, few: false }) : []
    const stepSeconds = turns.length > 0 ? median(turns.map(secondsOf)) : secondsOf(row)
    return [
      {
        ...of,
        stepSeconds,
        // Over sockets all models are there at once.
        ...(sockets || peakBytes === undefined ? {} : { peakBytes }),
        set: setOf(row),
        ...(local ? { given: true } : { claim: shaped ? "shaped" : sockets ? "unshaped" : "nvlink" })
      },
      ...(waited === undefined
        ? []
        : [
            {
              ...of,
              shown: "waited for",
              stepSeconds: waited,
              set: setOf(row, { waited: true }),
              claim: "waited"
            }
          ]),
      ...(shaped && links.includes(link)
        ? [
            {
              ...of,
              shown: "measured link",
              stepSeconds,
              set: setOf(row, { measured: true }),
              claim: "measured link"
            }
          ]
        : [])
    ]
  })

const table = {
  source: sourceOf(recording),
  // All of it that is of a machine, each step changes.
  scenario: "../measured/sharded-h100.yaml",
  steps: rows
}
const file = path.join(root, "scenarios/validate", `sharded-${machine}.measured.json`)
writeFileSync(file, `${JSON.stringify(table, null, 2)}\n`)

const { claims, lines } = await Effect.runPromise(
  Effect.flatMap(
    shardedH200Recorded(`sharded-${machine}`, path.basename(file), {
      sockets: hasSockets(recording),
      turns: hasTurns(recording),
      carried: "by calls"
    }).open,
    (opened) => opened.check(new Loader(), () => undefined)
  )
)
const told = claims.map(({ claim, holds, found }) => `${holds ? "holds" : "FAILS"}  ${claim}: ${found}`)
process.stdout.write(`${[`${file}: ${rows.length} steps`, ...lines, ...told].join("\n")}\n`)
