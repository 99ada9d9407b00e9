// A recorded run as a folder: op logs, journals and timeline of all ranks as Arrow files, and what the run was. Written where it
// ran, read where it is compared. docs/formats.md describes it.
import { rmSync } from "node:fs"
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import { json } from "../scenarios/cli/execute.ts"
import { writeTextFile } from "../scenarios/cli/text-file.ts"
import { checkWhole, digested, digestsIn, readAbout } from "../scenarios/cli/record/about.ts"
import { filesIn } from "../scenarios/cli/record/files.ts"
import { readJournals, writeJournals } from "../traces/journal-file.ts"
import { makeFolder, whyNotWritable } from "../traces/made-folder.ts"
import { readOpLogs, writeOpLogs } from "../traces/op-log-file.ts"
import { readTimeline, writeTimeline } from "../traces/timeline-file.ts"
import type { TraceError } from "../traces/trace-error.ts"
import type { RunRecord } from "./record-run.ts"

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
    const { makespanSeconds, clockErrorSeconds, realLinks, sums, peakBytes, capacityBytes } = record
    const bounded = (bytes: number): number | null => (bytes < Infinity ? bytes : null)
    const about = {
      format: "tandem-run",
      version: 1,
      ...of,
      makespanSeconds,
      clockErrorSeconds,
      realLinks,
      sums,
      peakBytes,
      capacityBytes: { device: bounded(capacityBytes.device), host: bounded(capacityBytes.host) }
    } as const
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
    yield* writeTextFile(files.about, [json(digested({ ...about, files: yield* digestsIn(folder) }))])
  })

/** Reads a run of that scenario. Errors: a folder without one, a run of another scenario, damaged files. */
export const readRecord = (folder: string, of: RunOf): Effect.Effect<RunRecord, InputError | TraceError> =>
  Effect.gen(function* () {
    const files = filesIn(folder)
    const bad = (field: string, value: string | undefined, accepted: string) =>
      new InputError({ file: files.about, field, ...(value === undefined ? {} : { value }), accepted })
    const about = yield* readAbout(folder)
    if (about.scenarioDigest !== of.scenarioDigest) {
      const accepted = `a run of "${of.scenario}" with the same settings: give the scenario and --set as they were when it was recorded`
      return yield* bad("scenarioDigest", `a run of "${about.scenario}" (${about.scenarioDigest})`, accepted)
    }
    // Of a run that does not say: as often as any backend does.
    const { makespanSeconds, clockErrorSeconds, realLinks, sums = "each", peakBytes, capacityBytes } = about
    if (about.ranks !== of.ranks)
      return yield* bad("ranks", String(about.ranks), `the ${of.ranks} of the scenario`)
    yield* checkWhole(folder, about)
    const calls = yield* readJournals(files.journal)
    return {
      ...calls,
      opLogs: yield* readOpLogs(files.ops),
      timeline: yield* readTimeline(files.timeline),
      makespanSeconds,
      clockErrorSeconds,
      realLinks,
      sums,
      peakBytes,
      capacityBytes: {
        device: capacityBytes.device ?? Infinity,
        host: capacityBytes.host ?? Infinity
      }
    }
  })
