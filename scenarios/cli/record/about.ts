// What a recorded run says of itself in run.json: written last, so a folder that has it is whole. docs/formats.md describes it.
import { existsSync } from "node:fs"
import { readFile } from "node:fs/promises"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { Amount, Count, Ranks } from "../../../core/fields.ts"
import { InputError } from "../../../core/input-error.ts"
import { fileDigest } from "../checkpoint/file-digest.ts"
import { sha256Of } from "../checkpoint/manifest.ts"
import { problemsOf } from "../../file/check.ts"
import { pathText } from "../../file/override.ts"
import { shapeOf } from "../../file/shape.ts"
import { reasonOf } from "../../file/source.ts"
import { filesIn } from "./files.ts"

const Bytes = Schema.Struct({ device: Amount, host: Amount })

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
  /** How sums over members in 16 bits were rounded; versions before did not say. */
  sums: Schema.optionalKey(Schema.Literals(["once", "each"])),
  peakBytes: Schema.Array(Schema.Struct({ rank: Count, bytes: Bytes })),
  /** Null for a memory without bounds. */
  capacityBytes: Schema.Struct({
    device: Schema.NullOr(Amount),
    host: Schema.NullOr(Amount)
  }),
  /** SHA-256 of each other file of the folder; versions before had none. */
  files: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  /** SHA-256 of all of the above, as JSON without spaces; versions before had none. */
  sha256: Schema.optionalKey(Schema.String)
})
type AboutRun = typeof About.Type

const aboutShape = shapeOf(About)

/** With its digest. */
export const digested = (about: Omit<AboutRun, "sha256">): AboutRun => ({ ...about, sha256: sha256Of(about) })

/** The files of a run beside run.json. */
const othersIn = (folder: string): ReadonlyArray<string> => {
  const { ops, timeline, journal } = filesIn(folder)
  return [ops, timeline, journal]
}

/** SHA-256 of each file of a run beside run.json, by its name. */
export const digestsIn = (folder: string): Effect.Effect<Readonly<Record<string, string>>, InputError> =>
  Effect.map(
    Effect.forEach(othersIn(folder), (file) =>
      Effect.map(fileDigest(file), ({ sha256 }) => [path.basename(file), sha256] as const)
    ),
    Object.fromEntries<string>
  )

/** Fails where memory is not told of each rank, or a file beside run.json is not the one that was written with it. */
export const checkWhole = (
  folder: string,
  { files, peakBytes, ranks }: AboutRun
): Effect.Effect<void, InputError> =>
  Effect.gen(function* () {
    const counted = new Set(peakBytes.map(({ rank }) => rank))
    if (peakBytes.length !== ranks || counted.size !== ranks || [...counted].some((rank) => rank >= ranks)) {
      const of = peakBytes.map(({ rank }) => rank).join(", ")
      const accepted = `of each of the ${ranks} ranks, once`
      return yield* new InputError({
        file: filesIn(folder).about,
        field: "peakBytes",
        value: `of ranks ${of}`,
        accepted
      })
    }
    if (files === undefined) return
    for (const file of othersIn(folder)) {
      const { sha256 } = yield* fileDigest(file)
      const written = files[path.basename(file)]
      if (sha256 === written) continue
      const accepted = `${written ?? "none"}, as the run's run.json has it: the file was changed or damaged, or is of another run`
      return yield* new InputError({ file, field: "sha256", value: sha256, accepted })
    }
  })

/** Reads what a folder says of its run. Fails for a folder without one, and for one that was changed or damaged, with the field. */
export const readAbout = (folder: string): Effect.Effect<AboutRun, InputError> =>
  Effect.gen(function* () {
    const file = filesIn(folder).about
    const bad = (field: string, value: string | undefined, accepted: string) =>
      new InputError({ file, field, ...(value === undefined ? {} : { value }), accepted })
    if (!existsSync(file))
      return yield* bad("", undefined, "a folder that exec agree --record wrote to its end")
    const text = yield* Effect.tryPromise({
      try: () => readFile(file, "utf8"),
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
    const { sha256, ...rest } = written as Readonly<Record<string, unknown>>
    if (sha256 !== undefined && sha256 !== sha256Of(rest)) {
      const accepted = `${sha256Of(rest)}, the digest of the rest: the file was changed or damaged`
      return yield* bad("sha256", String(sha256), accepted)
    }
    return about
  })
