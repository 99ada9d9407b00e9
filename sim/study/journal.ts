// The finished points of a study on disk while it runs: one self-checking JSON line each, appended, so that whatever ends
// the run leaves every finished point readable.
import * as Effect from "effect/Effect"
import { fstatSync, fsyncSync, openSync, readFileSync, renameSync, statSync } from "node:fs"
import { dirname } from "node:path"
import { Digest } from "../../core/digest.ts"
import { InputError } from "../../core/input-error.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { reasonOf } from "../../scenarios/file/source.ts"
import { appendSync, closeIfCan } from "../../traces/atomic-file.ts"
import { clearLeftovers, nameBeside, removeIfCan } from "../../traces/beside.ts"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"
import type { StudyHeader, StudyRow } from "./result.ts"

export type Finished = Map<number, ReadonlyArray<StudyRow>>

const checkOf = (text: string): string => {
  const digest = new Digest()
  digest.text(text)
  return digest.hex
}

const lineOf = (key: "study" | "finished", value: unknown): string => {
  const text = JSON.stringify(value)
  return `{"check":"${checkOf(text)}","${key}":${text}}\n`
}

/** The content of a line; undefined when it is torn or damaged. */
const contentOf = (line: string, key: "study" | "finished"): unknown => {
  try {
    const parsed: unknown = JSON.parse(line)
    if (!isRecord(parsed)) return undefined
    return parsed["check"] === checkOf(JSON.stringify(parsed[key])) ? parsed[key] : undefined
  } catch {
    return undefined
  }
}

/** What a journal's file is called, where the study is not one of several shards. */
export const journalName = "journal.jsonl"

/** Of a journal's text, how many of the study's points it has, and how many lines that are no longer what was written; undefined where it does not say of which study it is. */
export const journalSays = (
  text: string
): { readonly points: number; readonly finished: number; readonly damaged: number } | undefined => {
  const [first = "", ...lines] = text.split("\n")
  const study = contentOf(first, "study")
  if (!isRecord(study) || typeof study["points"] !== "number") return undefined
  const written = lines.filter((line) => line !== "")
  const finished = written.filter((line) => Array.isArray(contentOf(line, "finished"))).length
  return { points: study["points"], finished, damaged: written.length - finished }
}

const headline = ({ identity, points }: StudyHeader) => ({ identity, points })

/**
 * The points that a journal says are finished; none when there is no journal. Lines that are torn or damaged do not count.
 * Fails when the journal is of another study.
 */
export const readJournal = (path: string, header: StudyHeader): Effect.Effect<Finished, InputError> =>
  Effect.suspend(() => {
    let text: string
    try {
      text = readFileSync(path, "utf8")
    } catch (cause) {
      if (cause instanceof Error && "code" in cause && cause.code === "ENOENT")
        return Effect.succeed(new Map())
      return Effect.fail(unusable(path, cause))
    }
    const [first = "", ...lines] = text.split("\n")
    const study = contentOf(first, "study")
    if (text !== "" && JSON.stringify(study) !== JSON.stringify(headline(header))) {
      return Effect.fail(
        new InputError({
          file: path,
          field: "",
          value: study === undefined ? "a file that is no journal" : "the journal of another study",
          accepted:
            "the journal of this study: same scenario, axes, overrides and input files; or another --out"
        })
      )
    }
    const finished: Finished = new Map()
    for (const line of lines) {
      const rows = contentOf(line, "finished")
      if (!Array.isArray(rows) || rows.length === 0) continue
      const known = rows as ReadonlyArray<StudyRow>
      finished.set(known[0]!.point, known)
    }
    return Effect.succeed(finished)
  })

const unusable = (path: string, cause: unknown): InputError =>
  new InputError({
    file: path,
    field: "",
    value: reasonOf(cause),
    accepted: "a file in a writable folder with free space"
  })

export interface Journal {
  /** Appends a finished point. */
  readonly append: (rows: ReadonlyArray<StudyRow>) => Effect.Effect<void, InputError>
  /**
   * Makes what was appended durable against the machine's end, not only this process's. A journal that is gone, with its folder or
   * alone, is written again; fails where another run's is in its place.
   */
  readonly sync: Effect.Effect<void, InputError>
}

/** Begins a journal beside its place, so that one that is being resumed is not lost if this process ends here; its descriptor. */
const begin = (path: string, header: StudyHeader, finished: Finished): number => {
  clearLeftovers(path)
  const fresh = nameBeside(path)
  const descriptor = openSync(fresh, "w")
  try {
    appendSync(descriptor, lineOf("study", headline(header)))
    for (const rows of finished.values()) appendSync(descriptor, lineOf("finished", rows))
    fsyncSync(descriptor)
    renameSync(fresh, path)
  } catch (cause) {
    closeIfCan(descriptor)
    removeIfCan(fresh)
    throw cause
  }
  return descriptor
}

/** Whether what is open is what has its name; undefined where nothing has. Throws what the system does. */
const isThere = (path: string, descriptor: number): boolean | undefined => {
  const there = statSync(path, { throwIfNoEntry: false })
  if (there === undefined) return undefined
  const { dev, ino } = fstatSync(descriptor)
  return there.dev === dev && there.ino === ino
}

const madeAgain = (folder: string): void => {
  try {
    makeFolder(folder)
  } catch (cause) {
    throw new Error(whyNotWritable(folder, cause), { cause })
  }
}

/** A journal that is open. What it does throws what the system does. */
class OpenJournal {
  readonly #path: string
  readonly #header: StudyHeader
  readonly #finished: Finished
  #descriptor: number
  #isEmpty: boolean

  constructor(path: string, header: StudyHeader, finished: Finished) {
    this.#path = path
    this.#header = header
    this.#finished = finished
    this.#isEmpty = finished.size === 0
    this.#descriptor = begin(path, header, finished)
  }

  append(rows: ReadonlyArray<StudyRow>): void {
    appendSync(this.#descriptor, lineOf("finished", rows))
    this.#isEmpty = false
  }

  sync(): void {
    const there = isThere(this.#path, this.#descriptor)
    if (there === false) throw new Error("that of another run, which has begun there since,")
    if (there === undefined) {
      madeAgain(dirname(this.#path))
      const gone = this.#descriptor
      this.#descriptor = begin(this.#path, this.#header, this.#finished)
      closeIfCan(gone)
    }
    fsyncSync(this.#descriptor)
  }

  close(): void {
    try {
      if (this.#isEmpty && isThere(this.#path, this.#descriptor) === true) removeIfCan(this.#path)
    } finally {
      closeIfCan(this.#descriptor)
    }
  }
}

/**
 * Opens a journal for as long as `use` runs: a new one, or what is `finished` already, rewritten without damaged lines. If
 * `use` ends before any point is in it, it is removed. `use` adds to `finished` what it has appended.
 */
export const withJournal = <A, E, R>(
  path: string,
  header: StudyHeader,
  finished: Finished,
  use: (journal: Journal) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | InputError, R> => {
  const onDisk = <B>(work: () => B) => Effect.try({ try: work, catch: (cause) => unusable(path, cause) })
  return Effect.acquireUseRelease(
    onDisk(() => new OpenJournal(path, header, finished)),
    (journal) =>
      use({
        append: (rows) => onDisk(() => journal.append(rows)),
        sync: onDisk(() => journal.sync())
      }),
    (journal) => Effect.ignore(onDisk(() => journal.close()))
  )
}
