// Fields that the schemas of settings are made of: what a file may leave out, and whole numbers from 1.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** A field that a file may leave out. */
export const withDefault = <S extends Schema.Constraint>(schema: S, value: S["Encoded"]) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema)

/** A whole number from 1. */
export const Positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000_000 }))

/** What a field is that a file leaves out. Throws where it may not be left out. */
export const defaultOf = <S extends Schema.Constraint>(field: S): S["Type"] =>
  Schema.decodeUnknownSync(
    Schema.Struct({ field }) as unknown as Schema.Decoder<{ readonly field: S["Type"] }>
  )({}).field
