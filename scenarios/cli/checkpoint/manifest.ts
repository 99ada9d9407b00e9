// What a checkpoint says of itself: of which run it is, after which step, and which files hold what its ranks must find again.
// docs/checkpoints.md describes it. A manifest whose digest is not its own is no manifest.
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Count } from "../../../core/fields.ts"
import { InputError } from "../../../core/input-error.ts"
import { messageOf } from "../../../core/message-of.ts"

export const manifestName = "manifest.json"

/** Of a run: what decides what it learns, field by field as the scenario has it. */
const Run = Schema.Record(Schema.String, Schema.Json)

const Manifest = Schema.Struct({
  format: Schema.Literal("tandem-checkpoint"),
  formatVersion: Schema.Literal(1),
  /** Of the program that wrote it. */
  tandem: Schema.String,
  /** Name of the backend that it ran on. */
  backend: Schema.String,
  run: Run,
  /** What the algorithm had planned, and the digest of that. */
  plan: Schema.Struct({ sha256: Schema.String, described: Schema.Json }),
  /** Steps that were taken. */
  step: Count,
  ranks: Count.check(Schema.isGreaterThan(0)),
  /** Where batches come from; the next one is that of step `position`, and depends on seed, rank and step alone. */
  data: Schema.Struct({ source: Schema.Json, position: Count }),
  /** Every random number is a function of the seed and of where it is drawn: there is no other state. */
  random: Schema.Struct({ seed: Schema.Number, position: Count }),
  shards: Schema.Array(
    Schema.Struct({
      rank: Count,
      file: Schema.String,
      bytes: Count,
      sha256: Schema.String
    })
  ),
  /** SHA-256 of all of the above, as JSON without spaces. */
  sha256: Schema.String
})
export type Manifest = typeof Manifest.Type

/** A value as it comes back from a file of JSON. */
export const jsonOf = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null))

/** Of a value as JSON without spaces. */
export const sha256Of = (value: unknown): string =>
  createHash("sha256")
    .update(JSON.stringify(value ?? null))
    .digest("hex")

/** The text of a manifest file. */
export const printManifest = (manifest: Omit<Manifest, "sha256">): string =>
  `${JSON.stringify({ ...manifest, sha256: sha256Of(manifest) }, undefined, 2)}\n`

/** Reads a checkpoint's manifest. Fails for one that is missing, damaged, or of another version, with file and field. */
export const readManifest = (folder: string): Effect.Effect<Manifest, InputError> =>
  Effect.gen(function* () {
    const file = path.join(folder, manifestName)
    const refuse = (field: string, value: string | undefined, accepted: string) =>
      new InputError({ file, field, ...(value === undefined ? {} : { value }), accepted })
    const text = yield* Effect.try({
      try: () => readFileSync(file, "utf8"),
      catch: (cause) => refuse("", messageOf(cause), "the manifest of a checkpoint")
    })
    const parsed = yield* Effect.try({
      try: () => JSON.parse(text) as unknown,
      catch: () => refuse("", "what is no JSON", "the manifest of a checkpoint, undamaged")
    })
    const { format, formatVersion } = (parsed ?? {}) as Readonly<Record<string, unknown>>
    if (format !== "tandem-checkpoint")
      return yield* refuse("format", JSON.stringify(format), '"tandem-checkpoint"')
    if (formatVersion !== 1) return yield* refuse("formatVersion", JSON.stringify(formatVersion), "1")
    const manifest = yield* Schema.decodeUnknownEffect(Manifest)(parsed).pipe(
      Effect.mapError(({ issue }) => refuse("", undefined, `a manifest that is whole: ${String(issue)}`))
    )
    const { sha256, ...rest } = parsed as Readonly<Record<string, unknown>>
    if (sha256Of(rest) !== sha256) {
      const accepted = `${sha256Of(rest)}, the digest of the rest: the file was changed or damaged`
      return yield* refuse("sha256", String(sha256), accepted)
    }
    return manifest
  })
