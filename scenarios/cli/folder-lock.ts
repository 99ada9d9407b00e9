// One study at a time in a folder: a file that says which process writes there. One that a killed process has left is recovered.
import * as Effect from "effect/Effect"
import { openSync, closeSync, linkSync, readFileSync, renameSync, rmSync, statSync, writeSync } from "node:fs"
import { hostname } from "node:os"
import { InputError } from "../../core/input-error.ts"
import { isRecord } from "../file/shape.ts"
import { reasonOf } from "../file/source.ts"
import { isAlive, nameBeside } from "../../traces/beside.ts"
import { hasCode } from "../../traces/trace-error.ts"

interface Holder {
  readonly pid: number
  readonly host: string
  /** When that process began, as the system counts it: numbers of processes are used again. */
  readonly began: string | undefined
}

/** Field 22 of Linux's /proc/PID/stat, behind a name that may have spaces; undefined elsewhere. */
const beganOf = (pid: number): string | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
  } catch {
    return undefined
  }
}

const holderOf = (text: string): Holder | undefined => {
  try {
    const holder: unknown = JSON.parse(text)
    if (!isRecord(holder) || typeof holder["pid"] !== "number" || typeof holder["host"] !== "string")
      return undefined
    const { pid, host, began } = holder
    return { pid, host, began: typeof began === "string" ? began : undefined }
  } catch {
    return undefined
  }
}

/** A process that has made the file writes into it at once. */
const torn = (path: string): boolean => {
  const found = statSync(path, { throwIfNoEntry: false })
  return found !== undefined && Date.now() - found.mtimeMs > 10_000
}

const isLeft = (path: string, holder: Holder | undefined): boolean => {
  if (holder === undefined) return torn(path)
  if (holder.host !== hostname()) return false
  return !isAlive(holder.pid) || (holder.began !== undefined && holder.began !== beganOf(holder.pid))
}

/** Undefined when it is ours now; else who has it. */
const take = (path: string): { readonly by: string } | undefined => {
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const descriptor = openSync(path, "wx")
      const own = { pid: process.pid, host: hostname(), began: beganOf(process.pid) }
      writeSync(descriptor, `${JSON.stringify(own)}\n`)
      closeSync(descriptor)
      return undefined
    } catch (cause) {
      if (!hasCode(cause, "EEXIST")) throw cause
    }
    const text = textOf(path)
    if (text === undefined) continue
    const holder = holderOf(text)
    if (!isLeft(path, holder)) {
      const where = holder === undefined || holder.host === hostname() ? "" : ` on ${holder.host}`
      return { by: holder === undefined ? "another process" : `process ${holder.pid}${where}` }
    }
    clearLeft(path, text)
  }
  return { by: "another process" }
}

/** Whoever else finds it left takes it away as well: what is taken must be what was read, and is put back where nobody has another. */
const clearLeft = (path: string, text: string): void => {
  const aside = nameBeside(path)
  try {
    renameSync(path, aside)
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return
    throw cause
  }
  try {
    if (textOf(aside) !== text) linkSync(aside, path)
  } catch (cause) {
    if (!hasCode(cause, "EEXIST")) throw cause
  } finally {
    rmSync(aside, { force: true })
  }
}

const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

/** Runs `use` while this process alone has what `path` locks. `folder`: as the person named it. */
export const withLock = <A, E, R>(
  path: string,
  folder: string,
  use: Effect.Effect<A, E, R>
): Effect.Effect<A, E | InputError, R> =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => take(path),
      catch: (cause) =>
        new InputError({
          file: folder,
          field: "--out",
          value: reasonOf(cause),
          accepted: "a folder that can be written to"
        })
    }).pipe(
      Effect.flatMap((held) =>
        held === undefined
          ? Effect.void
          : Effect.fail(
              new InputError({
                file: folder,
                field: "--out",
                value: `a folder that ${held.by} writes a study to`,
                accepted: `another folder, or this one when that study has ended (${path} says so; remove it if it has)`
              })
            )
      )
    ),
    () => use,
    () => Effect.sync(() => rmSync(path, { force: true }))
  )
