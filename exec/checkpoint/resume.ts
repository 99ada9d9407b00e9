// Opens a checkpoint for a run that is to go on from it: the newest of a folder or the one that is named, held to the run that it
// was written by and to the digests of its files.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import type { Kept } from "../../core/machine/snapshots.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { fileDigest } from "../../scenarios/cli/checkpoint/file-digest.ts"
import {
  jsonOf,
  manifestName,
  readManifest,
  sha256Of,
  type Manifest
} from "../../scenarios/cli/checkpoint/manifest.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import type { Continuation } from "../../scenarios/trainable.ts"
import { SafetensorsFile } from "../../traces/safetensors.ts"
import type { TraceError } from "../../traces/trace-error.ts"

/** What a checkpoint must have been written by, for this run to go on from it. */
interface Successor {
  readonly tandem: string
  readonly ranks: number
  /** Steps to take in all. */
  readonly steps: number
  readonly continuation: Continuation
}

/** A checkpoint that a run can go on from. */
export interface Predecessor {
  readonly folder: string
  readonly manifest: Manifest
}

/** Reads a checkpoint's manifest, and holds it to the run. Fails with the file and the field that are not the run's. */
export const checkPredecessor = (
  folder: string,
  { tandem, ranks, steps, continuation }: Successor
): Effect.Effect<Predecessor, InputError> =>
  Effect.gen(function* () {
    const manifest = yield* readManifest(folder)
    const file = path.join(folder, manifestName)
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field, value: shown(value), accepted })
    if (manifest.tandem !== tandem)
      return yield* refuse("tandem", manifest.tandem, `${tandem}: another version may compute other bits`)
    const differs = difference(manifest.run, jsonOf(continuation.run), "run")
    if (differs !== undefined) {
      const { field, theirs, ours } = differs
      return yield* refuse(field, theirs, `${shown(ours)}, as this run has it: a run goes on as it was begun`)
    }
    const data = difference(manifest.data.source, jsonOf(continuation.data), "data.source")
    if (data !== undefined)
      return yield* refuse(data.field, data.theirs, `${shown(data.ours)}, as what this run learns has it`)
    if (manifest.ranks !== ranks) {
      if (continuation.fixedRanks !== undefined)
        return yield* refuse("ranks", manifest.ranks, `${ranks}, as this run has: ${continuation.fixedRanks}`)
    } else if (manifest.plan.sha256 !== sha256Of(continuation.plan)) {
      const accepted = `${sha256Of(continuation.plan)}: the algorithm planned otherwise then, for other links, another device or --plan-from`
      return yield* refuse("plan.sha256", manifest.plan.sha256, accepted)
    }
    if (manifest.step > steps)
      return yield* refuse("step", manifest.step, `at most the ${steps} steps that are asked for (--steps)`)
    return { folder, manifest }
  })

/** The files of a checkpoint that ranks of this process read. */
export class RestoredShards {
  readonly #files: ReadonlyMap<number, SafetensorsFile>
  readonly #ranks: number

  private constructor(files: ReadonlyMap<number, SafetensorsFile>, ranks: number) {
    this.#files = files
    this.#ranks = ranks
  }

  /**
   * Of a job with another number of ranks, a rank takes over what the one of its number modulo theirs had. Every byte that is
   * read later is held to its digest first.
   */
  static open(
    { folder, manifest }: Predecessor,
    here: ReadonlyArray<number>
  ): Effect.Effect<RestoredShards, InputError | TraceError> {
    const files = new Map<number, SafetensorsFile>()
    return Effect.gen(function* () {
      const { ranks } = manifest
      for (const rank of new Set(here.map((own) => own % ranks))) {
        const shard = manifest.shards.find((one) => one.rank === rank)
        if (shard === undefined) {
          const file = path.join(folder, manifestName)
          return yield* new InputError({ file, field: "shards", accepted: `one of rank ${rank}` })
        }
        const file = path.join(folder, shard.file)
        const { bytes, sha256 } = yield* fileDigest(file)
        const refuse = (field: string, value: string, accepted: string) =>
          new InputError({ file, field, value, accepted: `${accepted}, as the checkpoint's manifest has it` })
        if (bytes !== shard.bytes) return yield* refuse("bytes", String(bytes), String(shard.bytes))
        if (sha256 !== shard.sha256) return yield* refuse("sha256", sha256, shard.sha256)
        files.set(
          rank,
          yield* Effect.try({ try: () => SafetensorsFile.open(file), catch: (cause) => cause as TraceError })
        )
      }
      return new RestoredShards(files, ranks)
    }).pipe(Effect.onError(() => Effect.sync(() => closeAll(files))))
  }

  /** Throws InputError for a tensor that the rank's file has not, or has otherwise; TraceError where the disk refuses. */
  valuesOf(rank: number, { name, shape, dtype }: Kept): TensorData {
    const file = this.#files.get(rank % this.#ranks)!
    const found = file.tensors.get(name)
    const wanted = `${dtype} [${shape.join(", ")}]`
    const has = found === undefined ? "missing" : `${found.dtype} [${found.shape.join(", ")}]`
    if (found === undefined || has !== wanted)
      throw new InputError({ file: file.path, field: `tensor "${name}"`, value: has, accepted: wanted })
    return file.values(found)
  }

  close(): void {
    closeAll(this.#files)
  }
}

const closeAll = (files: ReadonlyMap<number, SafetensorsFile>): void => {
  for (const file of files.values()) file.close()
}

const shown = (value: unknown): string => JSON.stringify(value) ?? "nothing"

interface Difference {
  readonly field: string
  readonly theirs: unknown
  readonly ours: unknown
}

/** The first field that two values of JSON do not have alike. */
const difference = (theirs: unknown, ours: unknown, field: string): Difference | undefined => {
  if (!isRecord(theirs) || !isRecord(ours))
    return JSON.stringify(theirs) === JSON.stringify(ours) ? undefined : { field, theirs, ours }
  for (const key of new Set([...Object.keys(theirs), ...Object.keys(ours)])) {
    const found = difference(theirs[key], ours[key], `${field}.${key}`)
    if (found !== undefined) return found
  }
  return undefined
}
