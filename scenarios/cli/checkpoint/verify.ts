// Whether a checkpoint is what its manifest says, file by file: what a run that goes on from it would find. Changes nothing.
import { statSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { InputError } from "../../../core/input-error.ts"
import { SafetensorsFile } from "../../../traces/safetensors.ts"
import { attempt, type TraceError } from "../../../traces/trace-error.ts"
import { fileDigest } from "./file-digest.ts"
import { stepOf } from "./kept.ts"
import { manifestName, readManifest, type Manifest } from "./manifest.ts"

/** What was found of a checkpoint. */
export interface VerifiedCheckpoint {
  /** Undefined where there is none that can be read. */
  readonly manifest: Manifest | undefined
  /** Bytes of all parts, as the manifest has them. */
  readonly bytes: number
  /** What keeps a run from going on from it; none where nothing does. */
  readonly problems: ReadonlyArray<string>
}

type Shard = Manifest["shards"][number]

/**
 * Reads every byte that the manifest has a digest of; of `only` one part, where that is said: of the others then, whether they are
 * there with their bytes.
 */
export const verifyCheckpoint = (folder: string, only?: string): Effect.Effect<VerifiedCheckpoint> =>
  Effect.gen(function* () {
    const read = yield* Effect.result(readManifest(folder))
    if (Result.isFailure(read)) return { manifest: undefined, bytes: 0, problems: [read.failure.message] }
    const manifest = read.success
    const file = path.join(folder, manifestName)
    const refuse = (field: string, value: string, accepted: string): string =>
      new InputError({ file, field, value, accepted }).message
    const problems: Array<string> = []
    const { ranks, shards, step } = manifest
    const counts = new Map<number, number>()
    for (const { rank } of shards) counts.set(rank, (counts.get(rank) ?? 0) + 1)
    if (shards.length !== ranks || counts.size !== ranks || [...counts.keys()].some((rank) => rank >= ranks))
      problems.push(
        refuse(
          "shards",
          `of ranks ${shards.map(({ rank }) => rank).join(", ")}`,
          `of each of ${ranks} ranks, once`
        )
      )
    const named = stepOf(path.basename(path.resolve(folder)))
    if (named !== undefined && named !== step)
      problems.push(refuse("step", String(step), `${named}, for which the folder is named`))
    if (only !== undefined && !shards.some((shard) => shard.file === only))
      problems.push(refuse("shards", only, `a part of it: ${shards.map((shard) => shard.file).join(", ")}`))
    for (const shard of shards) {
      const found = yield* Effect.result(partOf(folder, shard, only === undefined || shard.file === only))
      if (Result.isFailure(found)) problems.push(found.failure.message)
    }
    return { manifest, bytes: shards.reduce((sum, { bytes }) => sum + bytes, 0), problems }
  })

/** Fails for a part that is not the one that was written. */
const partOf = (folder: string, shard: Shard, whole: boolean): Effect.Effect<void, InputError | TraceError> =>
  Effect.gen(function* () {
    const file = path.join(folder, shard.file)
    const refuse = (field: string, value: string, accepted: string) =>
      new InputError({ file, field, value, accepted: `${accepted}, as the checkpoint's manifest has it` })
    const size = statSync(file, { throwIfNoEntry: false })?.size
    if (size !== undefined && size !== shard.bytes)
      return yield* refuse("bytes", String(size), String(shard.bytes))
    if (size !== undefined && !whole) return
    const { sha256 } = yield* fileDigest(file)
    if (sha256 !== shard.sha256) return yield* refuse("sha256", sha256, shard.sha256)
    yield* attempt(file, "a part of a checkpoint", () => SafetensorsFile.open(file).close())
  })
