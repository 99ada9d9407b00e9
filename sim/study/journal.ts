// The finished points of a study on disk while it runs: one self-checking JSON line each, appended, so that whatever ends
// the run leaves every finished point readable.
import * as Effect from "effect/Effect"
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync } from "node:fs"
import { Digest } from "../../core/digest.ts"
import { InputError } from "../../core/input-error.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { reasonOf } from "../../scenarios/file/source.ts"
import { appendSync } from "../../traces/atomic-file.ts"
import { clearLeftovers, nameBeside } from "../../traces/beside.ts"
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
  /** Makes what was appended durable against the machine's end, not only this process's. */
  readonly sync: Effect.Effect<void, InputError>
}

/**
 * Opens a journal for as long as `use` runs: a new one, or what is `finished` already, rewritten without damaged lines. If
 * `use` ends before any point is in it, it is removed.
 */
export const withJournal = <A, E, R>(
  path: string,
  header: StudyHeader,
  finished: Finished,
  use: (journal: Journal) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | InputError, R> =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => {
        // Written beside its place first: a journal that is being resumed must not be lost if this process ends here.
        clearLeftovers(path)
        const fresh = nameBeside(path)
        const descriptor = openSync(fresh, "w")
        const state = { descriptor, points: finished.size }
        try {
          appendSync(descriptor, lineOf("study", headline(header)))
          for (const rows of finished.values()) appendSync(descriptor, lineOf("finished", rows))
          fsyncSync(descriptor)
          renameSync(fresh, path)
        } catch (cause) {
          closeSync(descriptor)
          rmSync(fresh, { force: true })
          throw cause
        }
        return state
      },
      catch: (cause) => unusable(path, cause)
    }),
    (state) =>
      use({
        append: (rows) =>
          Effect.try({
            try: () => {
              appendSync(state.descriptor, lineOf("finished", rows))
              state.points++
            },
            catch: (cause) => unusable(path, cause)
          }),
        sync: Effect.try({ try: () => fsyncSync(state.descriptor), catch: (cause) => unusable(path, cause) })
      }),
    (state) =>
      Effect.sync(() => {
        closeSync(state.descriptor)
        if (state.points === 0) rmSync(path, { force: true })
      })
  )
