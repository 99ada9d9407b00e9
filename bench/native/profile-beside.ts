// What `exec profile` says of a training step of GPT-2 124M, 4 x 1024 tokens in bfloat16, beside what `sim import kineto` makes of a
// torch.profiler trace of the same model on the same device: seconds of the device by part of the model, forward and backward, in all.
// Parts are cut where both cut: this project fuses a residual with the norm behind it, GELU with the product before it, and the loss's
// two passes.
//   npx node bench/native/profile-beside.ts --backend cuda --out profile-beside
//   npx node bench/native/profile-beside.ts --backend cpu --traces eager.pt.trace.json.gz --step-times 35.5ms --set "model={gpt2: {...}}"
// Without --traces PyTorch is run (torch-step.py), eager and by torch.compile; with `--traces none` only the first half is done. Writes
// ours.arrow, a profile for each trace, and profile-beside.json.
import { spawnSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type { Profile } from "../../core/profile.ts"
import { parseSeconds } from "../../core/units.ts"
import { Loader } from "../../scenarios/load.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { backendOf, optionsOf, quantityOf, wholeNumber } from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    /** Of PyTorch, by commas, instead of running it. */
    traces: { type: "string" },
    /** Of each trace's model without the profiler. */
    "step-times": { type: "string" },
    steps: { type: "string", default: "10" },
    set: { type: "string", multiple: true, default: [] },
    out: { type: "string", default: "profile-beside" }
  }
})
const backend = backendOf(options.backend)
const steps = String(wholeNumber("--steps", options.steps))
const stepTimes = options["step-times"]?.split(",") ?? []
for (const time of stepTimes) quantityOf("--step-times", time, parseSeconds)
const root = fileURLToPath(new URL("../..", import.meta.url))
const out = path.resolve(options.out)
const scenario = path.join(root, "scenarios/measured/what-if-gpt2.yaml")

/** What a command printed; throws where it failed. */
const ran = (command: string, ...words: ReadonlyArray<string>): string => {
  const result = spawnSync(command, words, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 2 ** 28
  })
  if (result.status !== 0)
    throw new Error(`${command} ${words.slice(0, 3).join(" ")} ended with ${result.status}`)
  process.stderr.write(result.stdout)
  return result.stdout
}

interface Trace {
  readonly name: string
  readonly file: string
  readonly stepTime: string | undefined
}

const traced = (name: string, ...how: ReadonlyArray<string>): Trace => {
  const file = path.join(out, `${name}.pt.trace.json.gz`)
  // as many rows of logits as ours has, which pads them
  const told = ran("python3", "bench/native/torch-step.py", "--vocabulary", "50304", "--trace", file, ...how)
  return { name, file, stepTime: /: ([\d.]+) ms a step/u.exec(told)?.[1]?.concat("ms") }
}

const tracesOf = (): ReadonlyArray<Trace> => {
  if (options.traces === "none") return []
  if (options.traces === undefined) return [traced("eager", "--eager"), traced("compiled")]
  return options.traces.split(",").map((file, i) => ({
    name: path.basename(file).split(".")[0]!,
    file: path.resolve(file),
    stepTime: stepTimes[i]
  }))
}

/** Parts of the model, and the names of their layers: this project's, then those of Hugging Face's modules in a trace. */
const parts: ReadonlyArray<readonly [part: string, ours: RegExp, theirs: RegExp]> = [
  ["embeddings", /\.wte$|\.wpe$/u, /\.Embedding_\d+$|^GPT2Model_0(#\d+)?$|^GPT2Model_0\.Dropout_0$/u],
  ["norms, residuals", /\.ln_\w+$/u, /LayerNorm_\d+$|Dropout_\d+$|GPT2Block_\d+(#\d+)?$/u],
  ["q, k, v", /attn\.c_attn$/u, /GPT2Attention_\d+\.Conv1D_\d*(?:[02468])$/u],
  ["attention", /\.attn$/u, /GPT2Attention_\d+(#\d+)?$/u],
  ["attention out", /attn\.c_proj$/u, /GPT2Attention_\d+\.Conv1D_\d*(?:[13579])$/u],
  [
    "MLP up, GELU",
    /mlp\.c_fc$|mlp\.act$/u,
    /GPT2MLP_\d+\.Conv1D_\d*(?:[02468])$|NewGELUActivation_\d+(#\d+)?$/u
  ],
  ["MLP down", /mlp\.c_proj$/u, /GPT2MLP_\d+\.Conv1D_\d*(?:[13579])$/u],
  ["head", /^lm_head$/u, /^Linear_\d+$/u],
  ["loss", /^loss$/u, /^loss$/u]
]

const nowhere = "of no part"

const partOf = (name: string, whose: 1 | 2): string =>
  parts.find((part) => part[whose].test(name))?.[0] ?? nowhere

interface Seconds {
  readonly forward: number
  readonly backward: number
}

const secondsOf = (layers: Profile["layers"], whose: 1 | 2): ReadonlyMap<string, Seconds> => {
  const sums = new Map<string, Seconds>()
  for (const { name, forward, backward } of layers) {
    const part = partOf(name, whose)
    const before = sums.get(part) ?? { forward: 0, backward: 0 }
    sums.set(part, {
      forward: before.forward + forward.busySeconds,
      backward: before.backward + backward.busySeconds
    })
  }
  return sums
}

const optimizerSeconds = (layers: Profile["layers"]): number =>
  layers.reduce((sum, { optimizer }) => sum + optimizer.busySeconds, 0)

const microseconds = (seconds: number): string => (1e6 * seconds).toFixed(0)

interface Named {
  readonly name: string
  readonly profile: Profile
}

/** A line of each part, one of the optimizer's and one of all; with two columns, by whom each is told, and their ratios. */
const tableOf = (ours: Profile, others: ReadonlyArray<Named>): ReadonlyArray<ReadonlyArray<string>> => {
  const own = secondsOf(ours.layers, 1)
  const theirs = others.map(({ profile }) => secondsOf(profile.layers, 2))
  const none: Seconds = { forward: 0, backward: 0 }
  const both = ({ forward, backward }: Seconds): number => forward + backward
  const ratio = (one: number, other: number): string => (other > 0 && one > 0 ? (one / other).toFixed(2) : "")
  const names = [...parts.map(([part]) => part), nowhere]
  return [
    [
      "us of the device",
      "forward",
      "backward",
      ...others.flatMap(({ name }) => [`${name}: forward`, "backward", "ours over it"])
    ],
    ...names.map((part) => {
      const mine = own.get(part) ?? none
      return [
        part,
        microseconds(mine.forward),
        microseconds(mine.backward),
        ...theirs.flatMap((sums) => {
          const other = sums.get(part) ?? none
          return [microseconds(other.forward), microseconds(other.backward), ratio(both(mine), both(other))]
        })
      ]
    }),
    [
      "optimizer",
      "",
      microseconds(optimizerSeconds(ours.layers)),
      ...others.flatMap(({ profile: { layers } }) => [
        "",
        microseconds(optimizerSeconds(layers)),
        ratio(optimizerSeconds(ours.layers), optimizerSeconds(layers))
      ])
    ],
    [
      "the device, all",
      "",
      microseconds(ours.deviceBusySeconds),
      ...others.flatMap(({ profile: { deviceBusySeconds } }) => [
        "",
        microseconds(deviceBusySeconds),
        ratio(ours.deviceBusySeconds, deviceBusySeconds)
      ])
    ],
    [
      "a step, unprofiled",
      "",
      microseconds(ours.unprofiledStepSeconds ?? ours.stepSeconds),
      ...others.flatMap(({ profile: { unprofiledStepSeconds, stepSeconds } }) => [
        "",
        microseconds(unprofiledStepSeconds ?? stepSeconds),
        ratio(ours.unprofiledStepSeconds ?? ours.stepSeconds, unprofiledStepSeconds ?? stepSeconds)
      ])
    ]
  ]
}

mkdirSync(out, { recursive: true })
const loader = new Loader()
const read = (file: string): Promise<Profile> => Effect.runPromise(loader.profile(file, "", file))

const ownFile = path.join(out, "ours.arrow")
const set = ["world.ranks=1", "algorithm=s-sgd", ...options.set].flatMap((one) => ["--set", one])
ran(
  process.execPath,
  "exec/cli.ts",
  "profile",
  scenario,
  "--backend",
  backend,
  "--steps",
  steps,
  "-o",
  ownFile,
  ...set
)
const ours = await read(ownFile)
const others: Array<Named> = []
for (const { name, file, stepTime } of tracesOf()) {
  const imported = path.join(out, `${name}.arrow`)
  const time = stepTime === undefined ? [] : ["--step-time", stepTime]
  try {
    ran(process.execPath, "sim/cli.ts", "import", "kineto", file, "-o", imported, ...time)
    others.push({ name, profile: await read(imported) })
  } catch (error) {
    // One trace that tells no layers, as of compiled modules, does not take the other with it.
    process.stderr.write(`${name} left out: ${String(error)}\n`)
    process.exitCode = 1
  }
}
const table = tableOf(ours, others)
for (const line of alignColumns(table, (column) => column > 0)) console.log(line)
writeFileSync(
  path.join(out, "profile-beside.json"),
  JSON.stringify({ device: ours.device, backend, set: options.set, table }, undefined, 1)
)
const last = others.map(
  ({ name, profile }) => `${(ours.deviceBusySeconds / profile.deviceBusySeconds).toFixed(2)} of ${name}'s`
)
console.log(
  `the device's time: ${microseconds(ours.deviceBusySeconds)} us${last.length === 0 ? "" : `, ${last.join(", ")}`}`
)
