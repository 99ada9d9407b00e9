// Files and folders that our own commands write, held to what reads them: a checkpoint to its digests, a recorded run to its parts,
// a study, its journal and a saved result to what they must say. What is damaged is no longer called usable.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import * as path from "node:path"
import { messageOf } from "../../core/message-of.ts"
import { counted, formatBytes } from "../../core/units.ts"
import { checkpointsIn } from "../../scenarios/cli/checkpoint/kept.ts"
import { manifestName } from "../../scenarios/cli/checkpoint/manifest.ts"
import { verifyCheckpoint, type VerifiedCheckpoint } from "../../scenarios/cli/checkpoint/verify.ts"
import { version } from "../../scenarios/cli/version.ts"
import { pathText } from "../../scenarios/file/override.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { checkWhole, readAbout } from "../../scenarios/cli/record/about.ts"
import { filesIn, recordNames } from "../../scenarios/cli/record/files.ts"
import type { Diagnosis } from "../../traces/doctor.ts"
import { readJournals } from "../../traces/journal-file.ts"
import { readOpLogs } from "../../traces/op-log-file.ts"
import { readTimeline } from "../../traces/timeline-file.ts"
import { journalName, journalSays } from "../study/journal.ts"
import { whyNotResult } from "../study/saved.ts"
import { readStudyArrow } from "../study/study-file.ts"

type Found = Omit<Diagnosis, "file" | "missing">

const mostProblems = 8

/** What was found, where nothing is wrong with it; else that it cannot be used, and why. */
const unless = (problems: ReadonlyArray<string>, found: Found, broken: string): Found =>
  problems.length === 0
    ? found
    : {
        ...found,
        readable: false,
        title: broken,
        uses: [],
        warnings: [
          ...problems.slice(0, mostProblems),
          ...(problems.length > mostProblems ? [`and ${problems.length - mostProblems} more`] : []),
          ...found.warnings
        ]
      }

/** A diagnosis by content alone, held to everything that stands behind it. */
export const heldToOwn = (diagnosis: Diagnosis): Effect.Effect<Diagnosis> => {
  const { file } = diagnosis
  const found = isFolder(file) ? inFolder(file) : ofFile(diagnosis)
  return found === undefined
    ? Effect.succeed(diagnosis)
    : Effect.map(found, (more) => ({ ...diagnosis, missing: [], ...more }))
}

const isFolder = (file: string): boolean => statSync(file, { throwIfNoEntry: false })?.isDirectory() === true

const inFolder = (folder: string): Effect.Effect<Found> | undefined => {
  if (holdsCheckpoint(folder)) return ofCheckpoint(folder)
  const kept = readable(() => checkpointsIn(folder)) ?? []
  if (kept.length > 0) return ofCheckpoints(folder, kept)
  if (existsSync(filesIn(folder).about)) return ofRecord(folder)
  const study = path.join(folder, "study.arrow")
  const journal = path.join(folder, journalName)
  if (existsSync(study)) return ofStudy(study)
  return existsSync(journal) ? ofJournal(journal) : undefined
}

/** Of a recorded run. */
const partKinds: ReadonlySet<string> = new Set(["timeline", "oplog", "journal"])

const ofFile = ({ file, kind, title }: Diagnosis): Effect.Effect<Found> | undefined => {
  const folder = path.dirname(file)
  const name = path.basename(file)
  const isPart = name === manifestName || name.endsWith(".safetensors")
  if (kind === "checkpoint" || (isPart && holdsCheckpoint(folder)))
    return ofCheckpoint(folder, name === manifestName ? undefined : name)
  const { about } = filesIn(folder)
  if (recordNames.includes(name) && (name === path.basename(about) || existsSync(about))) {
    const others = recordNames.filter((one) => existsSync(path.join(folder, one)))
    if (kind === "run" || others.length > 1)
      return Effect.map(ofRecord(folder), (found) =>
        partKinds.has(kind) && found.readable
          ? { ...found, kind, title: `${title}, of ${found.title}` }
          : found
      )
  }
  switch (kind) {
    case "study":
      return ofStudy(file)
    case "study-journal":
      return ofJournal(file)
    case "result":
      return ofResult(file)
    default:
      return undefined
  }
}

const readable = <A>(read: () => A): A | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

// ---- checkpoints

/** Whether a folder is a checkpoint, whole or not: by its manifest, or where that is damaged by its name and parts. */
const holdsCheckpoint = (folder: string): boolean => {
  const text = readable(() => readFileSync(path.join(folder, manifestName), "utf8"))
  if (text?.includes("tandem-checkpoint") === true) return true
  const parts = readable(() => readdirSync(folder)) ?? []
  return parts.some((name) => /^rank-\d{5}-of-\d{5}\.safetensors$/u.test(name))
}

const ofCheckpoint = (folder: string, only?: string): Effect.Effect<Found> =>
  Effect.map(verifyCheckpoint(folder, only), (verified) => ofVerified(folder, verified, only))

const ofVerified = (
  folder: string,
  { manifest, bytes, problems }: VerifiedCheckpoint,
  only?: string
): Found => {
  const here = version()
  const other =
    manifest === undefined || manifest.tandem === here
      ? []
      : [`written by version ${manifest.tandem}; ${here} may compute other bits, and does not go on from it`]
  const what = manifest === undefined ? "a checkpoint" : `a checkpoint after step ${manifest.step}`
  const contents =
    manifest === undefined
      ? []
      : [
          `${counted(manifest.ranks, "rank")}, ${formatBytes(bytes)} in all, written on ${manifest.backend}`,
          ...(problems.length > 0
            ? []
            : only === undefined
              ? ["every file has the digest that its manifest has"]
              : [
                  `${only} has the digest that its manifest has; of other parts only their lengths were looked at: sim doctor ${folder} reads them all`
                ])
        ]
  return unless(
    [...problems, ...other],
    {
      kind: "checkpoint",
      readable: true,
      title: only === undefined ? what : `a part of ${what}`,
      contents,
      uses: [{ what: "go on from it", how: resumed(folder) }],
      warnings: []
    },
    `${only === undefined ? what : `a part of ${what}`} that no run can go on from`
  )
}

/** An older one is gone on from in another folder: the newer would mix with what comes of it. */
const resumed = (folder: string): string => {
  const above = path.dirname(folder)
  const newest = (readable(() => checkpointsIn(above)) ?? []).at(-1)?.folder
  return newest !== undefined && path.resolve(newest) === path.resolve(folder)
    ? `exec train <scenario> --checkpoint ${above} --resume`
    : `exec train <scenario> --checkpoint <another folder> --resume ${folder}`
}

const ofCheckpoints = (folder: string, kept: ReturnType<typeof checkpointsIn>): Effect.Effect<Found> => {
  const newest = kept.at(-1)!
  return Effect.map(ofCheckpoint(newest.folder), (found) => ({
    ...found,
    title: `a folder of ${counted(kept.length, "checkpoint")}, the newest ${found.title}`,
    contents: [`after steps ${kept.map(({ step }) => step).join(", ")}`, ...found.contents],
    uses: found.readable
      ? [{ what: "go on from the newest", how: `exec train <scenario> --checkpoint ${folder} --resume` }]
      : []
  }))
}

// ---- recorded runs

const ofRecord = (folder: string): Effect.Effect<Found> =>
  Effect.gen(function* () {
    const { about, journal, ops, timeline } = filesIn(folder)
    const problems: Array<string> = []
    const read = <A>(effect: Effect.Effect<A, Error>): Effect.Effect<A | undefined> =>
      Effect.map(Effect.result(effect), (result) => {
        if (Result.isSuccess(result)) return result.success
        if (!problems.includes(result.failure.message)) problems.push(result.failure.message)
        return undefined
      })
    const said = yield* read(readAbout(folder))
    if (said !== undefined) yield* read(checkWhole(folder, said))
    const calls = yield* read(readJournals(journal))
    const logs = yield* read(readOpLogs(ops))
    const times = yield* read(readTimeline(timeline))
    const ranks = said?.ranks
    for (const [file, found] of [
      [journal, calls?.journals.length],
      [ops, logs?.length],
      [timeline, times === undefined ? undefined : new Set(times.rank).size]
    ] as const)
      if (ranks !== undefined && found !== undefined && found !== ranks)
        problems.push(`${file}: of ${counted(found, "rank")}; expected ${ranks}, as ${about} has it`)
    return unless(
      problems,
      {
        kind: "run",
        readable: true,
        title: "a run that was recorded",
        contents:
          said === undefined
            ? []
            : [
                `${said.scenario} on ${counted(said.ranks, "rank")}, ${counted(times?.rank.length ?? 0, "op")}`
              ],
        uses: [{ what: "compare it", how: `exec agree <scenario> --from ${folder}` }],
        warnings: []
      },
      "a run that was recorded, of which not all can be read"
    )
  })

// ---- studies and results

const ofStudy = (file: string): Effect.Effect<Found> =>
  Effect.map(Effect.result(readStudyArrow(file)), (study) => {
    const points = Result.isSuccess(study) ? new Set(study.success.rows.map(({ point }) => point)).size : 0
    const header = Result.isSuccess(study) ? study.success.header : undefined
    return unless(
      Result.isSuccess(study) ? [] : [study.failure.message],
      {
        kind: "study",
        readable: true,
        title: "points of a study",
        contents: header === undefined ? [] : [`${header.name}: ${points} of ${header.points} points`],
        uses: [
          { what: "set it beside others", how: `sim compare ${file} ...` },
          ...(header !== undefined && points < header.points
            ? [{ what: "put shards of a study together", how: "sim merge <all of its shards> -o <folder>" }]
            : [])
        ],
        warnings: []
      },
      "points of a study that cannot be read"
    )
  })

const ofJournal = (file: string): Effect.Effect<Found> =>
  Effect.map(
    Effect.result(Effect.try({ try: () => journalSays(readFileSync(file, "utf8")), catch: messageOf })),
    (result) => {
      const said = Result.isSuccess(result) ? result.success : undefined
      const problem = Result.isFailure(result)
        ? [`${file}: ${result.failure}`]
        : said === undefined
          ? [`${file}: its first line, which says of which study it is, is damaged`]
          : []
      return unless(
        problem,
        {
          kind: "study-journal",
          readable: true,
          title: "the journal of a study",
          contents: said === undefined ? [] : [`${said.finished} of ${said.points} points are finished`],
          uses: [{ what: "go on with it", how: `sim study <its file> --out ${path.dirname(file)} --resume` }],
          warnings:
            said === undefined || said.damaged === 0
              ? []
              : [`${counted(said.damaged, "line")} torn or damaged: their points are computed again`]
        },
        "the journal of a study that cannot be gone on with"
      )
    }
  )

const ofResult = (file: string): Effect.Effect<Found> =>
  Effect.sync(() => {
    const value: unknown = readable(() => JSON.parse(readFileSync(file, "utf8")))
    const rows: ReadonlyArray<unknown> | undefined =
      isRecord(value) && Array.isArray(value["rows"]) ? value["rows"] : undefined
    const problems = (rows ?? [value]).flatMap((row, index) =>
      whyNotResult(row).map((problem) => {
        const field = pathText([...(rows === undefined ? [] : ["rows", index]), ...problem.path])
        const told = problem.value === undefined ? "" : `${problem.value} is not accepted; `
        return `${file}: ${field}: ${told}expected ${problem.accepted}`
      })
    )
    return unless(
      problems,
      {
        kind: "result",
        readable: true,
        title: rows === undefined ? "the result of a run" : "the results of a study",
        contents: [],
        uses: [{ what: "set it beside others", how: `sim compare ${file} ...` }],
        warnings: []
      },
      `${rows === undefined ? "the result of a run" : "the results of a study"} that cannot be compared`
    )
  })
