// sim study and sim merge: computes the points of a study, whole or in shards, and writes what they come to.
import * as Effect from "effect/Effect"
import { rmdirSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { InputError } from "../../core/input-error.ts"
import { inputErrors } from "../../scenarios/file/input-errors.ts"
import { loadStudy, type StudyDefinition } from "../study/definition.ts"
import { eventLoopTurn } from "../study/event-loop.ts"
import { readJournal, withJournal, type Finished, type Journal } from "../study/journal.ts"
import { mergeShards } from "../study/merge.ts"
import { digestOfRows, headerOf, inOrder, type StudyResult } from "../study/result.ts"
import { pointsOfShard, runPoints, type Shard } from "../study/run-study.ts"
import { studyNames } from "../study/study-names.ts"
import { execute, json, toldThough, type Outcome } from "../../scenarios/cli/execute.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { printStudy } from "./print-study.ts"
import { patientProgress, terminalProgress } from "../../scenarios/cli/progress.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { requireApart, requireWritable } from "../../scenarios/cli/outputs.ts"
import { filesOfAll } from "../../scenarios/named-files.ts"
import { withLock } from "../../scenarios/cli/folder-lock.ts"
import { version } from "../../scenarios/cli/version.ts"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"

export interface StudyCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly out?: string
  readonly jobs?: number
  readonly shard?: Shard
  readonly resume?: boolean
  readonly json?: boolean
}

export const studyCommand = (file: string, options: StudyCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      if (options.resume === true && options.out === undefined && options.shard === undefined)
        return yield* optionError("--resume", "--out with the folder that has the journal")
      const definition = yield* loaded(file, options.set)
      for (const note of definition.notes) writeError(`sim: ${note}\n`)
      const { shard } = options
      const folder = options.out ?? (shard === undefined ? undefined : ".")
      if (folder === undefined) return yield* compute(definition, new Map(), options)
      const scenarios = definition.points.flatMap(({ grid }) => grid.map(({ scenario }) => scenario))
      const own = [shardFile(shard), journalFile(shard)]
      yield* requireApart(
        [...studyNames, ...own].map((name) => ["--out", join(folder, name)]),
        filesOfAll(scenarios, file)
      )
      const lock = join(folder, `${journalFile(shard)}.lock`)
      const computing = Effect.andThen(
        requireReplaceable(folder, own),
        computeIn(folder, definition, options)
      )
      return yield* inFolder(folder, withLock(lock, aStudyIn(folder), computing))
    })
  )

/** The study, while whoever waits for the points of a large one is told how far it is, and heard. */
const loaded = (file: string, sets: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    const progress = patientProgress("reading points", (line) => writeError(`sim: ${line}\n`))
    const between = (done: number, all: number) =>
      Effect.andThen(
        Effect.sync(() => progress.update(done, all)),
        eventLoopTurn
      )
    return Effect.ensuring(loadStudy(file, sets, between), Effect.sync(progress.end))
  })

const aStudyIn = (folder: string) => ({ folder, option: "--out", what: "a study" })

/** Fails, before anything is computed, where something else is in the place of a file that the option does not say by itself. */
const requireReplaceable = (folder: string, names: ReadonlyArray<string>) =>
  Effect.forEach(names, (name) => requireWritable(join(folder, name), "--out"), { discard: true })

const optionError = (file: string, accepted: string) =>
  inputErrors(new InputError({ file, field: "", accepted }))

/** Runs with the folder there; a folder made for nothing is removed again. */
const inFolder = <A, E>(folder: string, use: Effect.Effect<A, E>): Effect.Effect<A, E | InputError> =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => makeFolder(folder),
      catch: (cause) =>
        new InputError({
          file: folder,
          field: "--out",
          value: `a folder that cannot be made: ${whyNotWritable(folder, cause)}`,
          accepted: "a folder that can be written to"
        })
    }),
    () => use,
    (made) =>
      Effect.sync(() => {
        if (made === undefined) return
        try {
          let at = resolve(folder)
          for (; at !== made; at = dirname(at)) rmdirSync(at)
          rmdirSync(at)
        } catch {
          return // Something is in it: it is what the person wants.
        }
      })
  )

const nameOf = (shard: Shard | undefined, name: string): string =>
  shard === undefined ? name : `${name}-${shard.index % shard.count}-of-${shard.count}`

const journalFile = (shard: Shard | undefined): string => `${nameOf(shard, "journal")}.jsonl`
const shardFile = (shard: Shard | undefined): string => `${nameOf(shard, "shard")}.arrow`

const computeIn = (folder: string, definition: StudyDefinition, options: StudyCommandOptions) =>
  Effect.gen(function* () {
    const { shard } = options
    const header = headerOf(definition)
    const journal = join(folder, journalFile(shard))
    const finished: Finished = options.resume === true ? yield* readJournal(journal, header) : new Map()
    const sayFinished = Effect.sync(() => {
      const total = pointsOfShard(definition.points, shard).length
      if (finished.size > 0)
        writeError(`sim: ${finished.size} of ${total} points are finished; continue with --resume\n`)
    })
    const keep = Effect.suspend(() => {
      const rows = inOrder(finished)
      return rows.length === 0 ? Effect.void : Effect.ignore(writeStudy(folder, shard, { header, rows }))
    })
    const result = yield* withJournal(journal, header, finished, (open) =>
      computeRows(definition, finished, options, open).pipe(
        Effect.onInterrupt(() => Effect.andThen(Effect.ignore(open.sync), keep)),
        // Where the journal is not there, and cannot be, nothing could be continued.
        Effect.onError(() => Effect.ignore(Effect.andThen(open.sync, sayFinished)))
      )
    )
    const report = shard === undefined ? writeReport(folder, result, definition, options) : Effect.void
    return yield* toldThough(
      outcome(result, options),
      Effect.andThen(writeStudy(folder, shard, result), report)
    )
  })

const compute = (definition: StudyDefinition, finished: Finished, options: StudyCommandOptions) =>
  Effect.map(computeRows(definition, finished, options), (result) => outcome(result, options))

const computeRows = (
  definition: StudyDefinition,
  finished: Finished,
  options: StudyCommandOptions,
  journal?: Journal
) => {
  const progress = terminalProgress(definition.name)
  return runPoints(definition, finished, {
    jobs: options.jobs,
    shard: options.shard,
    journal,
    onProgress: progress.update
  }).pipe(
    Effect.ensuring(Effect.sync(progress.end)),
    Effect.map((): StudyResult => ({ header: headerOf(definition), rows: inOrder(finished) }))
  )
}

const outcome = (result: StudyResult, options: { readonly json?: boolean }): Outcome =>
  // A study none of whose points can run says no.
  ({
    ok: result.rows.length === 0 || result.rows.some(({ failure }) => failure === undefined),
    text:
      options.json === true
        ? json({ digest: digestOfRows(result.rows), axes: result.header.axes, rows: result.rows })
        : `${printStudy(result)}\ndigest ${digestOfRows(result.rows)}\n`
  })

/** A shard's rows for merging; a whole study's for people and programs. */
const writeStudy = (folder: string, shard: Shard | undefined, result: StudyResult) =>
  Effect.gen(function* () {
    const { writeStudyArrow, writeStudyCsv } = yield* Effect.promise(() => import("../study/study-file.ts"))
    if (shard !== undefined) {
      const path = join(folder, shardFile(shard))
      yield* writeStudyArrow(path, result)
      writeError(`sim: wrote ${path}; put the shards together with sim merge\n`)
      return
    }
    yield* writeStudyArrow(join(folder, "study.arrow"), result)
    yield* writeStudyCsv(join(folder, "study.csv"), result)
    writeError(`sim: wrote study.arrow and study.csv to ${folder}\n`)
  })

const noTimelines =
  "shards carry results, and not the files that a run is recorded of; sim study without --shard, or sim run --timeline, has them"

/** The HTML report; a study that searches has no chart to show. Timelines need the scenarios, which shards do not carry. */
const writeReport = (
  folder: string,
  result: StudyResult,
  definition: StudyDefinition | undefined,
  options: { readonly set?: ReadonlyArray<string> }
) =>
  Effect.gen(function* () {
    if (result.header.search !== null || result.rows.every(({ failure }) => failure !== undefined)) return
    const { recordTimelines, reportOf } = yield* Effect.promise(() => import("../study/report-of.ts"))
    const { renderReport } = yield* Effect.promise(() => import("../report/page.ts"))
    const timelines = definition === undefined ? [] : yield* recordTimelines(definition, result.rows)
    const sets = (options.set ?? []).map((set) => ` --set ${quoted(set)}`).join("")
    const command = `sim study ${quoted(definition?.file ?? "study.yaml")}${sets} --out out`
    const path = join(folder, "report.html")
    const withoutTimelines = definition === undefined ? noTimelines : undefined
    const context = { command, version: version(), timelines, withoutTimelines }
    yield* writeTextFile(path, [renderReport(reportOf(result, context))])
    writeError(
      `sim: wrote ${path}${withoutTimelines === undefined ? "" : `, without timelines: ${noTimelines}`}\n`
    )
  })

/** As a shell would want it. */
const quoted = (text: string): string =>
  /^[\w./=:@%+-]+$/u.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`

export interface MergeCommandOptions {
  readonly out: string
  readonly json?: boolean
}

export const mergeCommand = (files: ReadonlyArray<string>, options: MergeCommandOptions): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const { readStudyArrow } = yield* Effect.promise(() => import("../study/study-file.ts"))
      const parts = yield* Effect.forEach(files, (file) =>
        Effect.map(readStudyArrow(file), (study) => ({ file, study }))
      )
      const result = yield* mergeShards(parts)
      yield* requireApart(
        studyNames.map((name) => ["--out", join(options.out, name)]),
        files
      )
      const lock = join(options.out, `${journalFile(undefined)}.lock`)
      const writing = toldThough(
        outcome(result, options),
        Effect.andThen(
          writeStudy(options.out, undefined, result),
          writeReport(options.out, result, undefined, {})
        )
      )
      return yield* inFolder(options.out, withLock(lock, aStudyIn(options.out), writing))
    })
  )
