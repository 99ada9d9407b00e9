// A recorded run as a folder: op logs, journals and timeline of all ranks as Arrow files, and what the run was. Written where it
// ran, read where it is compared. docs/formats.md describes it.
import { existsSync, rmSync } from "node:fs"
import { readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { Amount, Count, Ranks } from "../core/fields.ts"
import { InputError } from "../core/input-error.ts"
import { json } from "../scenarios/cli/execute.ts"
import { problemsOf } from "../scenarios/file/check.ts"
import { pathText } from "../scenarios/file/override.ts"
import { shapeOf } from "../scenarios/file/shape.ts"
import { reasonOf } from "../scenarios/file/source.ts"
import { writeTextFile } from "../scenarios/cli/text-file.ts"
import { readJournals, writeJournals } from "../traces/journal-file.ts"
import { makeFolder, whyNotWritable } from "../traces/made-folder.ts"
import { readOpLogs, writeOpLogs } from "../traces/op-log-file.ts"
import { readTimeline, writeTimeline } from "../traces/timeline-file.ts"
import type { TraceError } from "../traces/trace-error.ts"
import { filesIn } from "./record-files.ts"
import type { RunRecord } from "./record-run.ts"

const Bytes = Schema.Struct({ device: Amount, host: Amount })

/** `run.json`; written last, so a folder that has it is whole. */
const About = Schema.Struct({
  format: Schema.Literal("tandem-run"),
  version: Schema.Literal(1),
  scenario: Schema.String,
  /** Of the scenario as it was run, overrides included. */
  scenarioDigest: Schema.String,
  ranks: Ranks,
  makespanSeconds: Amount,
  clockErrorSeconds: Amount,
  realLinks: Schema.Boolean,
  peakBytes: Schema.Array(Schema.Struct({ rank: Count, bytes: Bytes })),
  /** Null for a memory without bounds. */
  capacityBytes: Schema.Struct({
    device: Schema.NullOr(Amount),
    host: Schema.NullOr(Amount)
  })
})
const aboutShape = shapeOf(About)

/** What a run was of. */
interface RunOf {
  readonly scenario: string
  readonly scenarioDigest: string
  readonly ranks: number
}

/** Writes a run into a folder, which is made where it is not there. */
export const writeRecord = (
  folder: string,
  of: RunOf,
  record: RunRecord
): Effect.Effect<void, InputError | TraceError> =>
  Effect.gen(function* () {
    const files = filesIn(folder)
    const { makespanSeconds, clockErrorSeconds, realLinks, peakBytes, capacityBytes } = record
    const bounded = (bytes: number): number | null => (bytes < Infinity ? bytes : null)
    const about: typeof About.Encoded = {
      format: "tandem-run",
      version: 1,
      ...of,
      makespanSeconds,
      clockErrorSeconds,
      realLinks,
      peakBytes,
      capacityBytes: { device: bounded(capacityBytes.device), host: bounded(capacityBytes.host) }
    }
    yield* Effect.try({
      try: () => {
        makeFolder(folder)
        rmSync(files.about, { force: true })
      },
      catch: (cause) =>
        new InputError({
          file: folder,
          field: "--record",
          value: whyNotWritable(folder, cause),
          accepted: "a folder that can be written to"
        })
    })
    yield* writeOpLogs(files.ops, record.opLogs)
    yield* writeTimeline(files.timeline, record.timeline)
    yield* writeJournals(files.journal, record)
    yield* writeTextFile(files.about, [json(about)])
  })

/** Reads a run of that scenario. Errors: a folder without one, a run of another scenario, damaged files. */
export const readRecord = (folder: string, of: RunOf): Effect.Effect<RunRecord, InputError | TraceError> =>
  Effect.gen(function* () {
    const files = filesIn(folder)
    const bad = (field: string, value: string | undefined, accepted: string) =>
      new InputError({ file: files.about, field, ...(value === undefined ? {} : { value }), accepted })
    if (!existsSync(files.about))
      return yield* bad("", undefined, "a folder that exec agree --record wrote to its end")
    const text = yield* Effect.tryPromise({
      try: () => readFile(files.about, "utf8"),
      catch: (cause) => bad("", reasonOf(cause), "a file that can be read")
    })
    const written = yield* Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: (cause) => bad("", reasonOf(cause), "JSON, as exec agree --record writes it")
    })
    const decoded = Schema.decodeUnknownExit(About)(written)
    if (Exit.isFailure(decoded)) {
      const wrong = problemsOf(aboutShape, written).find(({ atKey }) => !atKey)
      const accepted = wrong?.accepted ?? "what exec agree --record writes"
      return yield* bad(pathText(wrong?.path ?? []), wrong?.value, accepted)
    }
    const about = decoded.value
    if (about.scenarioDigest !== of.scenarioDigest) {
      const accepted = `a run of "${of.scenario}" with the same settings: give the scenario and --set as they were when it was recorded`
      return yield* bad("scenarioDigest", `a run of "${about.scenario}" (${about.scenarioDigest})`, accepted)
    }
    const { makespanSeconds, clockErrorSeconds, realLinks, peakBytes, capacityBytes } = about
    if (about.ranks !== of.ranks)
      return yield* bad("ranks", String(about.ranks), `the ${of.ranks} of the scenario`)
    const counted = peakBytes.map(({ rank }) => rank)
    if (
      counted.length !== of.ranks ||
      new Set(counted).size !== of.ranks ||
      counted.some((rank) => rank >= of.ranks)
    )
      return yield* bad(
        "peakBytes",
        `of ranks ${counted.join(", ")}`,
        `of each of the ${of.ranks} ranks, once`
      )
    const calls = yield* readJournals(files.journal)
    return {
      ...calls,
      opLogs: yield* readOpLogs(files.ops),
      timeline: yield* readTimeline(files.timeline),
      makespanSeconds,
      clockErrorSeconds,
      realLinks,
      peakBytes,
      capacityBytes: {
        device: capacityBytes.device ?? Infinity,
        host: capacityBytes.host ?? Infinity
      }
    }
  })
