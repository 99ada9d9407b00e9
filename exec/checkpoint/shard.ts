// One rank's part of a checkpoint: a file of safetensors, written as its values come, with the digest of its bytes.
import { createHash } from "node:crypto"
import { open, type FileHandle } from "node:fs/promises"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import type { MachineError } from "../../core/machine/machine.ts"
import type { Kept } from "../../core/machine/snapshots.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"
import { encodeHeader, encodeValues } from "../../traces/safetensors.ts"
import { TraceError } from "../../traces/trace-error.ts"

/** Of a rank: what a manifest says of its file. */
export interface ShardEntry {
  readonly rank: number
  /** Its name in the checkpoint's folder. */
  readonly file: string
  readonly bytes: number
  /** In hexadecimal digits. */
  readonly sha256: string
}

export const shardName = (rank: number, ranks: number): string => {
  const digits = (n: number) => String(n).padStart(5, "0")
  return `rank-${digits(rank)}-of-${digits(ranks)}.safetensors`
}

/** Between chunks other work of this thread goes on: submitting ops, above all. */
const chunkBytes = 4 * 2 ** 20

/** Writes the tensors of a rank, each as soon as its values are there, and syncs the file. Errors: the machine, the disk. */
export const writeShard = (
  file: string,
  tensors: ReadonlyArray<Kept>,
  valuesOf: (tensor: Kept) => Effect.Effect<TensorData, MachineError>
): Effect.Effect<Pick<ShardEntry, "bytes" | "sha256">, MachineError | TraceError> => {
  const onDisk = <A>(work: () => Promise<A>) =>
    Effect.tryPromise({
      try: work,
      catch: (cause) =>
        new TraceError({
          file,
          field: "file",
          value: `not written: ${whyNotWritable(path.dirname(file), cause)}`,
          accepted: "a writable folder with free space"
        })
    })
  const opened = onDisk(async () => {
    makeFolder(path.dirname(file))
    return open(file, "w")
  })
  return Effect.acquireUseRelease(
    opened,
    (handle) =>
      Effect.gen(function* () {
        const hash = createHash("sha256")
        let count = 0
        // Small tensors go to the disk together.
        let waiting: Array<Uint8Array> = []
        let waitingBytes = 0
        const append = (bytes: Uint8Array) => {
          waiting.push(bytes)
          waitingBytes += bytes.length
          return waitingBytes < chunkBytes ? Effect.void : flush
        }
        const flush = onDisk(async () => {
          const [pieces, total] = [waiting, waitingBytes]
          waiting = []
          waitingBytes = 0
          const bytes = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, total)
          for (let from = 0; from < total; from += chunkBytes) {
            const chunk = bytes.subarray(from, from + chunkBytes)
            hash.update(chunk)
            await writeWhole(handle, chunk)
          }
          count += total
        })
        yield* append(encodeHeader(tensors, { format: "tandem-checkpoint" }))
        for (const tensor of tensors) yield* append(encodeValues(yield* valuesOf(tensor), tensor.dtype))
        yield* flush
        yield* onDisk(() => handle.sync())
        return { bytes: count, sha256: hash.digest("hex") }
      }),
    // What was synced is there; of what was not, whoever wrote has heard already, and a disk may say it again here.
    (handle) => Effect.promise(() => handle.close().catch(() => undefined))
  )
}

/** A disk that is nearly full takes a part, and says so at the next. */
const writeWhole = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  let done = 0
  while (done < bytes.length) done += (await handle.write(bytes, done)).bytesWritten
}
