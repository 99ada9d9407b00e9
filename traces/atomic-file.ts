// A file that exists whole or not at all: written beside its place under another name, synced, then renamed.
// Knows nothing of what is in it.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { TraceError, traceErrorFrom } from "./trace-error.ts"

/**
 * Appends bytes or text (as UTF-8). Throws a `TraceError` when the disk refuses; inside `writeFileAtomically` that becomes
 * its failure, wherever it was thrown.
 */
export interface FileSink {
  write(chunk: Uint8Array | string): void
}

const writable = "a path in an existing, writable folder with free space"

let unique = 0

const append = (descriptor: number, bytes: Uint8Array): void => {
  let offset = 0
  while (offset < bytes.byteLength) offset += writeSync(descriptor, bytes, offset)
}

const syncFolder = (folder: string): void => {
  // Makes the rename itself durable. Some file systems refuse to sync a folder; the data is safe without.
  try {
    const descriptor = openSync(folder, "r")
    try {
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
  } catch {
    return
  }
}

/**
 * Runs `body` with a sink; when it succeeds, the file at `path` is replaced in one step by what was written. When it
 * fails or is interrupted, `path` is untouched and nothing is left behind.
 */
export const writeFileAtomically = <A, E, R>(
  path: string,
  body: (sink: FileSink) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceError, R> => {
  const failed = (cause: unknown) => traceErrorFrom(path, "file", writable, cause)
  return Effect.acquireUseRelease(
    Effect.try({
      try: () => {
        const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${unique++}.tmp`)
        return { temporary, descriptor: openSync(temporary, "wx"), open: true }
      },
      catch: (cause) =>
        new TraceError({
          file: path,
          field: "file",
          value: cause instanceof Error ? cause.message : String(cause),
          accepted: writable
        })
    }),
    (file) =>
      Effect.flatMap(
        Effect.catchDefect(
          Effect.suspend(() =>
            body({
              write: (chunk) => {
                try {
                  append(file.descriptor, typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk)
                } catch (cause) {
                  throw failed(cause)
                }
              }
            })
          ),
          (defect) => (defect instanceof TraceError ? Effect.fail(defect) : Effect.die(defect))
        ),
        (result) =>
          Effect.try({
            try: () => {
              fsyncSync(file.descriptor)
              closeSync(file.descriptor)
              file.open = false
              renameSync(file.temporary, path)
              syncFolder(dirname(path))
              return result
            },
            catch: failed
          })
      ),
    (file, exit) =>
      Effect.sync(() => {
        if (file.open) closeSync(file.descriptor)
        if (Exit.isFailure(exit)) rmSync(file.temporary, { force: true })
      })
  )
}
