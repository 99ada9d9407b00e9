// What checkpoints cost: predicted by the simulator from a profile, the disk's speed and that of copies, then run for real. One rank
// whose kernels take what a slow device needs, so that a step is the same whatever else this machine does.
//   node bench/checkpoint-cost.ts [--every 1,2,4,16] [--folder <on the disk to measure>]
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { timeCopies } from "../exec/bench.ts"
import { writeShard } from "../exec/checkpoint/shard.ts"
import { askedFor, openCheckpoints } from "../exec/cli/checkpoints.ts"
import { emulatedDevice, leastSecondsOn, onDevice } from "../exec/cli/emulated-device.ts"
import { training } from "../exec/train/train.ts"
import { familyOf } from "../scenarios/families.ts"
import { Loader } from "../scenarios/load.ts"
import { loadScenario } from "../scenarios/scenario-file.ts"
import { runScenario } from "../sim/run.ts"
import { executedSteps } from "./cluster/measured-steps.ts"
import { elementsOf } from "../core/machine/tensor.ts"
import { median } from "../core/median.ts"
import { readProfile } from "../traces/profile-file.ts"
import { numbersOf, optionsOf, wholeNumber } from "./numbers.ts"

const { values } = optionsOf({
  options: { every: { type: "string", default: "1,2,4,16" }, folder: { type: "string", default: tmpdir() } }
})
const periods = numbersOf("--every", values.every, wholeNumber)
const root = fileURLToPath(new URL("..", import.meta.url))
const file = path.join(root, "bench/cluster/what-if.yaml")
const folder = mkdtempSync(path.join(values.folder, "checkpoint-cost-"))
const common = [
  "world.ranks=1",
  "device={name: a slow core, flops: 2GFLOP/s, memoryBandwidth: 4GB/s}",
  "algorithm=s-sgd",
  "training={heldOut: 0, optimizer: {name: adamw, learningRate: 0.001}}"
]
const sets = common.flatMap((one) => ["--set", one])

/** Bytes per second at which one file of so many bytes is written, digest included, and synced. */
const storageRate = async (bytes: number): Promise<number> => {
  const data = new Float32Array(bytes / 4).fill(0.5)
  const tensors = Array.from({ length: 10 }, (_, i) => ({
    name: String(i),
    shape: [data.length / 10],
    dtype: "float32" as const
  }))
  const part = data.subarray(0, data.length / 10)
  const seconds: Array<number> = []
  for (let i = 0; i < 5; i++) {
    const began = performance.now()
    await Effect.runPromise(writeShard(path.join(folder, "alone"), tensors, () => Effect.succeed(part)))
    seconds.push((performance.now() - began) / 1000)
  }
  return bytes / median(seconds)
}

const predict = async (profile: string, checkpoint: string | undefined): Promise<number> => {
  const more = [
    `model={profile: ${profile}}`,
    ...(checkpoint === undefined ? [] : [`checkpoint=${checkpoint}`])
  ]
  const scenario = await Effect.runPromise(loadScenario(file, [...common, ...more]))
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  return (result as unknown as { readonly stepSeconds: number }).stepSeconds
}

const warmup = 16
const steps = 48

const run = (every: number | undefined): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const scenario = yield* loadScenario(file, common)
        const trainable = yield* familyOf(scenario).train!(
          scenario,
          file,
          { loader: new Loader() },
          {
            steps: warmup + steps
          }
        )
        const prepare = onDevice(leastSecondsOn(yield* emulatedDevice(scenario, file)))
        const kept = path.join(folder, `every ${every}`)
        const asked =
          every === undefined
            ? undefined
            : yield* askedFor({ checkpoint: kept, checkpointEvery: every, keep: 1 }, trainable)
        const snapshots =
          asked === undefined
            ? undefined
            : yield* openCheckpoints(asked, trainable, {
                seed: 0,
                job: undefined,
                tell: () => {},
                warn: () => {}
              })
        const { timeline } = yield* training(trainable, { record: true, prepare, snapshots }).run
        return executedSteps(timeline!, warmup, steps).stepSeconds
      })
    )
  )

const milliseconds = (seconds: number): string => `${(1e3 * seconds).toFixed(1)} ms`
try {
  const profile = path.join(folder, "profile.arrow")
  const command = ["bin/exec.js", "profile", file, ...sets, "--emulate-device", "-o", profile]
  const { status, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: "utf8" })
  if (status !== 0) throw new Error(stderr)
  const copies = await Effect.runPromise(timeCopies)
  const copy = copies.filter(({ op }) => op === "d2h").at(-1)!
  const copyRate = copy.bytes / copy.medianSeconds
  const { parameters } = await Effect.runPromise(readProfile(profile))
  const elements = parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)
  // A parameter and AdamW's two moments of it, in float32.
  const rate = await storageRate(3 * 4 * elements)
  console.log(
    `copies ${(copyRate / 1e9).toFixed(2)} GB/s, storage ${(rate / 1e6).toFixed(0)} MB/s; ${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`
  )
  console.log("every  predicted    took        off by")
  for (const every of [undefined, ...periods]) {
    const checkpoint =
      every === undefined
        ? undefined
        : `{every: ${every}, hostLink: {bandwidth: ${copyRate}B/s, latency: 10us}, storage: {bandwidth: ${rate}B/s}}`
    const predicted = await predict(profile, checkpoint)
    const took = await run(every)
    console.log(
      `${String(every ?? "none").padEnd(5)}  ${milliseconds(predicted).padStart(9)}  ${milliseconds(took).padStart(9)}  ${(100 * (predicted / took - 1)).toFixed(1)} %`
    )
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
