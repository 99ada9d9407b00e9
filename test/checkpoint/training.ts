// Training runs with checkpoints, in this process, as `exec train` makes them.
import * as Effect from "effect/Effect"
import { rmSync } from "node:fs"
import * as path from "node:path"
import { askedFor, openCheckpoints, type CheckpointCommandOptions } from "../../exec/cli/checkpoints.ts"
import type { Checkpoints } from "../../exec/checkpoint/checkpoints.ts"
import { checkpointsIn } from "../../scenarios/cli/checkpoint/kept.ts"
import { readManifest, type Manifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { training, type Learnt } from "../../exec/train/train.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"

/** A name for each way to train, and the scenario's overrides that make it. */
type Variants = Readonly<Record<string, ReadonlyArray<string>>>

const root = path.join(import.meta.dirname, "../..")
const tiny = path.join(import.meta.dirname, "tiny.yaml")

const algorithm = (settings: string): ReadonlyArray<string> => [`algorithm={${settings}}`]

/** Every algorithm, and each way in which something is left for the next step. */
export const variants: Variants = {
  "s-sgd": algorithm("name: s-sgd"),
  ddp: algorithm("name: ddp, bucketBytes: 1KiB, firstBucketBytes: 1KiB"),
  "ddp, updates at next use": algorithm(
    "name: ddp, bucketBytes: 1KiB, firstBucketBytes: 1KiB, deadline: next-use"
  ),
  "local-sgd": algorithm("name: local-sgd, period: 4"),
  "partial-local-sgd": algorithm("name: partial-local-sgd, period: 4"),
  "dreamddp, steps at next use": algorithm("name: dreamddp, period: 4, deadline: next-use"),
  "dreamddp in bfloat16": [
    ...algorithm("name: dreamddp, period: 4, order: step-then-average"),
    "training.precision=bfloat16"
  ],
  "ddp in float16, whose scale grows": [
    ...algorithm("name: ddp"),
    "training.precision=float16",
    "training.lossScale={initial: 1048576, growthInterval: 3}"
  ],
  diloco: algorithm("name: diloco, period: 4"),
  "streaming-diloco": algorithm("name: streaming-diloco, period: 6, fragments: 2, delaySteps: 2"),
  "ddp of a divided model (FSDP)": [...algorithm("name: ddp"), "shard={within: world}"],
  "diloco of a divided model (ZeRO-1) in bfloat16": [
    ...algorithm("name: diloco, period: 4"),
    "shard={within: node, parameters: false, gradients: false}",
    "world.ranks=4",
    "world.ranksPerNode=2",
    "training.precision=bfloat16"
  ],
  // A text's bytes two by two are tokens as good as any.
  "s-sgd of files of tokens, in chunks": [
    ...algorithm("name: s-sgd"),
    `training.tokens=${path.join(root, "scenarios/texts/psalms.txt")}`,
    "training.chunkTokens=40",
    "model.gpt2.vocabulary=32768"
  ],
  "moe-training": []
}

const fileOf = (name: string): string =>
  name === "moe-training" ? path.join(root, "scenarios/agree/moe-training.yaml") : tiny

interface Asked extends CheckpointCommandOptions {
  readonly steps: number
  /** Beside the variant's. */
  readonly set?: ReadonlyArray<string>
  readonly onStep?: (step: number, checkpoints: Checkpoints) => void
  /** What others do when this run has looked at the folder, and before it has locked it. */
  readonly meanwhile?: () => Promise<unknown>
}

/** Trains a variant to its end, or to where it stops. */
export const train = (name: string, { steps, set = [], onStep, meanwhile, ...options }: Asked) =>
  Effect.scoped(
    Effect.gen(function* () {
      const file = fileOf(name)
      const scenario = yield* loadScenario(file, [...variants[name]!, ...set])
      const trainable = yield* familyOf(scenario).train!(scenario, file, { loader: new Loader() }, { steps })
      const asked = yield* askedFor(options, trainable)
      if (meanwhile !== undefined) yield* Effect.promise(meanwhile)
      const told: Array<string> = []
      const checkpoints = yield* openCheckpoints(asked!, trainable, {
        seed: scenario.seed,
        job: undefined,
        tell: (line) => told.push(line),
        warn: (line) => told.push(`warning: ${line}`)
      })
      const { run, learnt } = training(trainable, {
        snapshots: checkpoints,
        onStep: ({ step }) => onStep?.(step, checkpoints)
      })
      yield* run
      return { learnt: learnt(), checkpoints, told }
    })
  )

interface Trained {
  readonly learnt: Learnt
  readonly checkpoints: Checkpoints
  /** Lines for people. */
  readonly told: ReadonlyArray<string>
}

export const trained = (name: string, asked: Asked): Promise<Trained> => Effect.runPromise(train(name, asked))

/** The error that a run is refused with. */
export const refused = (name: string, asked: Asked): Promise<Error> =>
  Effect.runPromise(Effect.flip(train(name, asked)))

export const newest = (folder: string): { readonly step: number; readonly folder: string } | undefined =>
  checkpointsIn(folder).at(-1)

export const manifestIn = (folder: string): Promise<Manifest> => Effect.runPromise(readManifest(folder))

/** Digests of all that every rank has after a run's last step. */
export const stateIn = async (folder: string): Promise<ReadonlyArray<string>> =>
  (await manifestIn(newest(folder)!.folder)).shards.map(({ sha256 }) => sha256)

/** Trained from the beginning without a pause: its losses, and the digests of all state at its end. */
export const whole = async (name: string, steps: number, folder: string, set: ReadonlyArray<string> = []) => {
  rmSync(folder, { recursive: true, force: true })
  const { learnt } = await trained(name, { steps, set, checkpoint: folder, checkpointEvery: steps })
  return { learnt, state: await stateIn(folder) }
}
