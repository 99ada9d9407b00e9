// Fields that the schemas of settings are made of: what a file may leave out, and whole numbers from 1.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mostPositive, mostRanks } from "./bounds.ts"

/** A field that a file may leave out. */
export const withDefault = <S extends Schema.Constraint>(schema: S, value: S["Encoded"]) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema)

const wholeUpTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 1, maximum }))

/** A whole number from 1, of what costs neither memory nor time for each. */
export const Positive = wholeUpTo(mostPositive)

/** A whole number from 0. */
export const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** A finite number from 0, in whatever unit: a time, bytes. */
export const Amount = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

// What is kept in memory one by one has bounds that a process of 4 GB can hold.

/** Ranks, and what has at most as many. */
export const Ranks = wholeUpTo(mostRanks)

/** Layers of a model. Published ones have some hundred. */
export const Layers = wholeUpTo(10_000)

/** Experts of a layer. */
export const Experts = wholeUpTo(10_000)

/** Requests, tokens or steps that are there one by one. */
export const Listed = wholeUpTo(1_000_000)

/** What a field is that a file leaves out. Throws where it may not be left out. */
export const defaultOf = <S extends Schema.Constraint>(field: S): S["Type"] =>
  Schema.decodeUnknownSync(
    Schema.Struct({ field }) as unknown as Schema.Decoder<{ readonly field: S["Type"] }>
  )({}).field
