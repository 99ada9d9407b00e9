// A file that exists whole or not at all: written beside its place under another name, synced, then renamed. What is no
// regular file (a pipe, /dev/stdout) cannot be replaced and is written to as it is. Knows nothing of what is in it.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  statSync,
  writeSync
} from "node:fs"
import { dirname } from "node:path"
import { clearLeftovers, nameBeside, removeIfCan } from "./beside.ts"
import { fileOf } from "./system-words.ts"
import { hasCode, TraceError, traceErrorFrom } from "./trace-error.ts"

/**
 * Appends bytes or text (as UTF-8). Throws a `TraceError` when the disk refuses; inside `writeFileAtomically` that becomes
 * its failure, wherever it was thrown.
 */
export interface FileSink {
  write(chunk: Uint8Array | string): void
}

const { O_NONBLOCK, O_WRONLY } = constants

const writable = "a path in an existing, writable folder with free space"

const pause = new Int32Array(new SharedArrayBuffer(4))

/** How often a pipe is looked at for a reader, which may be starting, 10 ms apart. */
const looks = 100

/** Opens what is no regular file for writing. A pipe that nobody reads is an error after a second, not a wait without end. */
const openInPlace = (path: string): number => {
  for (let look = 1; ; look++) {
    try {
      return openSync(path, O_WRONLY | O_NONBLOCK)
    } catch (cause) {
      if (look === looks || !hasCode(cause, "ENXIO")) throw cause
      Atomics.wait(pause, 0, 0, 10)
    }
  }
}

/** Appends all of it, as UTF-8 where it is text: a disk that is nearly full takes a part, and says so at the next. Throws what the system does. */
export const appendSync = (descriptor: number, chunk: Uint8Array | string): void => {
  const bytes = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk
  let offset = 0
  while (offset < bytes.byteLength) {
    try {
      offset += writeSync(descriptor, bytes, offset)
    } catch (cause) {
      // A pipe is full, since it is not waited for when it is opened: wait for its reader.
      if (!hasCode(cause, "EAGAIN")) throw cause
      Atomics.wait(pause, 0, 0, 1)
    }
  }
}

/** Closes what was synced, or is given up: a system that refuses has nothing to add. */
export const closeIfCan = (descriptor: number): void => {
  try {
    closeSync(descriptor)
  } catch {
    return
  }
}

/** Makes names in a folder durable. Some file systems refuse to sync a folder; the data in it is safe without. */
export const syncFolder = (folder: string): void => {
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

/** Why a file could not be opened, without its path: it is that of the file beside its place. */
export const reasonNot = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  if (hasCode(cause, "ENXIO")) return "a pipe that nobody reads (ENXIO)"
  if (hasCode(cause, "ENOENT")) return "in a folder that does not exist (ENOENT)"
  if (hasCode(cause, "EISDIR")) return "a folder (EISDIR)"
  if (hasCode(cause, "EACCES") || hasCode(cause, "EPERM")) return "one that may not be written"
  return fileOf(cause)
}

interface OpenFile {
  readonly descriptor: number
  /** Where it is written and where it belongs; undefined when it is written in its place. */
  readonly moved: { readonly from: string; readonly to: string } | undefined
  open: boolean
}

const openFor = (path: string): OpenFile => {
  const existing = statSync(path, { throwIfNoEntry: false })
  if (existing !== undefined && !existing.isFile())
    return { descriptor: openInPlace(path), moved: undefined, open: true }
  // A link stays a link: what it points to is replaced.
  const to = existing === undefined ? path : realpathSync(path)
  clearLeftovers(to)
  const from = nameBeside(to)
  return { descriptor: openSync(from, "wx"), moved: { from, to }, open: true }
}

const finish = (file: OpenFile): void => {
  const { descriptor, moved } = file
  if (moved !== undefined) fsyncSync(descriptor)
  // A network's file system may refuse here what it took before; the descriptor is gone all the same.
  file.open = false
  closeSync(descriptor)
  if (moved === undefined) return
  renameSync(moved.from, moved.to)
  syncFolder(dirname(moved.to))
}

/**
 * Runs `body` with a sink; when it succeeds, the file at `path` is replaced in one step by what was written. When it
 * fails or is interrupted, `path` is untouched and nothing is left behind; a pipe or device keeps what it was sent.
 */
export const writeFileAtomically = <A, E, R>(
  path: string,
  body: (sink: FileSink) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceError, R> => {
  const failed = (cause: unknown) => traceErrorFrom(path, "file", writable, cause)
  return Effect.acquireUseRelease(
    Effect.try({
      try: () => openFor(path),
      catch: (cause) =>
        new TraceError({
          file: path,
          field: "file",
          value: reasonNot(cause),
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
                  appendSync(file.descriptor, chunk)
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
              finish(file)
              return result
            },
            catch: failed
          })
      ),
    (file, exit) =>
      Effect.sync(() => {
        if (file.open) closeIfCan(file.descriptor)
        if (Exit.isFailure(exit) && file.moved !== undefined) removeIfCan(file.moved.from)
      })
  )
}
