// One writer at a time in a folder: a file that says which process writes there. One that a killed process has left is recovered.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import {
  openSync,
  closeSync,
  linkSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { hostname } from "node:os"
import { dirname, resolve } from "node:path"
import { InputError } from "../../core/input-error.ts"
import { isRecord } from "../file/shape.ts"
import { appendSync } from "../../traces/atomic-file.ts"
import { clearLeftovers, isAlive, nameBeside, removeIfCan } from "../../traces/beside.ts"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"
import { statOf } from "../../traces/stat-of.ts"
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
  const found = statOf(path)
  return found !== undefined && Date.now() - found.mtimeMs > 10_000
}

const isLeft = (path: string, holder: Holder | undefined, touched: boolean): boolean => {
  if (holder === undefined) return torn(path)
  if (holder.host !== hostname()) return touched && untouchedMillis(path) > leftAfterMillis
  return !isAlive(holder.pid) || (holder.began !== undefined && holder.began !== beganOf(holder.pid))
}

const touchEveryMillis = 10_000
const leftAfterMillis = 120_000

const ownText = (): string => {
  const own: Holder = { pid: process.pid, host: hostname(), began: beganOf(process.pid) }
  return `${JSON.stringify(own)}\n`
}

/**
 * Says that its holder lives: what it says is written again, so that whoever keeps the file sets its time. "other" where it says
 * something else: while this host was suspended, say, another process took it over.
 */
const touch = (path: string, text: string): "ours" | "other" | "gone" => {
  try {
    const descriptor = openSync(path, "r+")
    try {
      // A byte more than is ours, to see what is longer. What is open stays the file that was read, whoever renames it.
      const found = Buffer.alloc(Buffer.byteLength(text) + 1)
      if (found.toString("utf8", 0, readSync(descriptor, found, 0, found.length, 0)) !== text) return "other"
      writeSync(descriptor, text, 0)
    } finally {
      closeSync(descriptor)
    }
  } catch (cause) {
    // What the system refuses otherwise may work the next time.
    return isGone(cause) ? "gone" : "ours"
  }
  return "ours"
}

/** Nothing is there, or a file is where a folder was. */
const isGone = (cause: unknown): boolean => hasCode(cause, "ENOENT") || hasCode(cause, "ENOTDIR")

/**
 * The file, with what says that it is ours: whole at once, for one that is empty would keep others out for a while should this process
 * be killed then. Throws what the system does, EEXIST where there is one.
 */
const make = (path: string, text: string): void => {
  const beside = nameBeside(path)
  try {
    makeInPlace(beside, text)
    linkSync(beside, path)
  } catch (cause) {
    if (hasCode(cause, "EEXIST")) throw cause
    // Some file systems have no links.
    makeInPlace(path, text)
  } finally {
    removeIfCan(beside)
  }
}

const makeInPlace = (path: string, text: string): void => {
  const descriptor = openSync(path, "wx")
  try {
    appendSync(descriptor, text)
  } catch (cause) {
    removeIfCan(path)
    throw cause
  } finally {
    closeSync(descriptor)
  }
}

/** By the clock of whoever keeps the file. */
const untouchedMillis = (path: string): number => {
  const now = nameBeside(path)
  writeFileSync(now, "")
  const { mtimeMs } = statSync(now)
  rmSync(now, { force: true })
  return mtimeMs - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? mtimeMs)
}

/** Undefined when it is ours now and says `text`; else who has it. */
const take = (path: string, touched: boolean, text: string): { readonly by: string } | undefined => {
  clearLeftovers(path)
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      make(path, text)
      return undefined
    } catch (cause) {
      if (!hasCode(cause, "EEXIST")) throw cause
    }
    const found = textOf(path)
    if (found === undefined) continue
    const holder = holderOf(found)
    if (!isLeft(path, holder, touched)) {
      const where = holder === undefined || holder.host === hostname() ? "" : ` on ${holder.host}`
      return { by: holder === undefined ? "another process" : `process ${holder.pid}${where}` }
    }
    clearLeft(path, found)
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

/** Who has a lock now, in words. */
const holderIn = (path: string): string => {
  const holder = holderOf(textOf(path) ?? "")
  return holder === undefined ? "another process" : `process ${holder.pid} on ${holder.host}`
}

/** What is locked, for messages. */
interface Locked {
  /** As the person named it, by which option. */
  readonly folder: string
  readonly option: string
  /** What is written there: "a study". */
  readonly what: string
  /**
   * Its holder touches it every few seconds, and counts as gone when it has not for two minutes: a process of another host cannot
   * be asked whether it lives. Only for who never computes that long without a pause; without it, people remove such a lock.
   */
  readonly touched?: boolean
  /**
   * Whether a lock that somebody has removed, with its folder or alone, may be taken again: not where another process may have had
   * it in between, and left something there. Never, where it is not said.
   */
  readonly mayRegain?: () => boolean
}

/** Why a lock is not this process's any more: who has it, for good, or, of one that is gone, why it cannot be had again yet. */
export type Loss = { readonly by: string } | { readonly gone: string }

/** A lock that this process has taken. */
class Holding {
  readonly #path: string
  readonly #text: string
  #touching: NodeJS.Timeout | undefined
  readonly #mayRegain: () => boolean
  #loss: Loss | undefined

  constructor(path: string, text: string, touched: boolean, mayRegain: () => boolean) {
    this.#path = path
    this.#text = text
    this.#mayRegain = mayRegain
    if (touched) this.#touching = setInterval(() => void this.#touch(), touchEveryMillis).unref()
  }

  loss(): Loss | undefined {
    return this.#touch()
  }

  /** What others have taken over stays theirs. */
  release(): void {
    if (this.#loss === undefined && touch(this.#path, this.#text) === "ours") removeIfCan(this.#path)
    clearInterval(this.#touching)
  }

  #touch(): Loss | undefined {
    if (this.#loss !== undefined) return this.#loss
    const found = touch(this.#path, this.#text)
    if (found === "ours") return undefined
    const loss = found === "other" ? { by: holderIn(this.#path) } : this.#regained()
    if (loss === undefined || "gone" in loss) return loss
    clearInterval(this.#touching)
    return (this.#loss = loss)
  }

  #regained(): Loss | undefined {
    const folder = dirname(this.#path)
    try {
      if (!this.#mayRegain()) return { by: "another process" }
      makeFolder(folder)
      make(this.#path, this.#text)
      return undefined
    } catch (cause) {
      return hasCode(cause, "EEXIST") && touch(this.#path, this.#text) === "other"
        ? { by: holderIn(this.#path) }
        : { gone: whyNotWritable(folder, cause) }
    }
  }
}

const holdings = new Map<string, Holding>()

const never = (): boolean => false

/**
 * Why a lock that this process took is not its own any more, as far as its file says; undefined while it is, and of one that it has
 * not taken. To be asked before each write: whoever gives no sign of life, on a suspended host say, is taken for gone.
 */
export const lossOf = (path: string): Loss | undefined => holdings.get(resolve(path))?.loss()

/** The same for a process of a job, which writes what another one of the job has locked: `text` is what that one's lock says. */
export const lossToOthers = (path: string, text: string): Loss | undefined => {
  try {
    return readFileSync(path, "utf8") === text ? undefined : { by: holderIn(path) }
  } catch (cause) {
    // What the system refuses otherwise may work the next time.
    return isGone(cause) ? { gone: `${path} has been removed` } : undefined
  }
}

/**
 * Has what `path` locks for this process alone while the scope lives; what the lock says, for `lossToOthers`. Fails where another
 * process has it.
 */
export const lockOf = (
  path: string,
  { folder, option, what, touched = false, mayRegain = never }: Locked
): Effect.Effect<string, InputError, Scope.Scope> => {
  const text = ownText()
  return Effect.acquireRelease(
    Effect.try({
      try: () => take(path, touched, text),
      catch: (cause) =>
        new InputError({
          file: folder,
          field: option,
          value: whyNotWritable(folder, cause),
          accepted: "a folder that can be written to"
        })
    }).pipe(
      Effect.flatMap((held) =>
        held === undefined
          ? Effect.sync(() => {
              const holding = new Holding(path, text, touched, mayRegain)
              holdings.set(resolve(path), holding)
              return holding
            })
          : Effect.fail(
              new InputError({
                file: folder,
                field: option,
                value: `a folder that ${held.by} writes ${what} to`,
                accepted: `another folder, or this one when that has ended (${path} says so; remove it if it has)`
              })
            )
      )
    ),
    (holding) =>
      Effect.sync(() => {
        holding.release()
        holdings.delete(resolve(path))
      })
  ).pipe(Effect.as(text))
}

/** Runs `use` while this process alone has what `path` locks. */
export const withLock = <A, E, R>(
  path: string,
  locked: Locked,
  use: Effect.Effect<A, E, R>
): Effect.Effect<A, E | InputError, Exclude<R, Scope.Scope>> =>
  Effect.scoped(Effect.andThen(lockOf(path, locked), use))
