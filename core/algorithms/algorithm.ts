// An algorithm as a value, whatever its family: its name, what papers call it, what a scenario may say about it, and what a
// test may draw of that. What it plans and runs is its family's business. Generates nothing: testing/ draws.
import * as Schema from "effect/Schema"

/** The schema of one algorithm's settings: its name, and fields that each have a default or may be left out. */
export interface SettingsSchema extends Schema.Constraint {
  readonly Type: { readonly name: string }
  readonly Encoded: { readonly name: string }
  readonly DecodingServices: never
  readonly fields: { readonly name: { readonly literal: string } }
}

/**
 * What every algorithm of every family is: a name, a title and the schema of its settings, with their
 * defaults.
 */
export interface Algorithm<S extends SettingsSchema = SettingsSchema> {
  /** As a scenario writes it: "ddp". */
  readonly name: S["Type"]["name"]
  /** As papers write it: "DDP". */
  readonly title: string
  readonly settings: S
}

/** The name that the schema says. */
export const nameOf = <S extends SettingsSchema>(settings: S): S["Type"]["name"] =>
  settings.fields.name.literal

/** The settings of a scenario that says nothing but the name. Throws where the schema asks for more. */
export const defaultsOf = <S extends SettingsSchema>(settings: S): S["Type"] =>
  Schema.decodeUnknownSync(settings as unknown as Schema.Decoder<S["Type"]>)({ name: nameOf(settings) })

/** The settings' schemas of a list of algorithms, in its order, for a union of them. */
export const settingsOf = <const A extends ReadonlyArray<Algorithm>>(
  algorithms: A
): { readonly [K in keyof A]: A[K]["settings"] } =>
  algorithms.map(({ settings }) => settings) as unknown as { readonly [K in keyof A]: A[K]["settings"] }

export type DrawnValue = string | number | boolean | undefined

/** What papers call each of a list, by the name that scenarios have. */
export const titlesOf = (
  algorithms: ReadonlyArray<{ readonly name: string; readonly title: string }>
): Readonly<Record<string, string>> => Object.fromEntries(algorithms.map(({ name, title }) => [name, title]))

/** What a test may draw for a setting: one of a list, smallest first, or a whole number of a range. */
export type Draw = ReadonlyArray<DrawnValue> | { readonly from: number; readonly to: number }

/** What is drawn, by name. */
export type Draws = Readonly<Record<string, Draw>>

/** One value for each. */
type Drawn<D extends Draws> = {
  readonly [K in keyof D]: D[K] extends ReadonlyArray<infer V> ? V : number
}

/** Plain values to draw, and the settings that they make, as a scenario writes them, for a model of so many layers. */
export interface Arbitrary<Input> {
  readonly draws: Draws
  readonly settings: (drawn: Readonly<Record<string, DrawnValue>>, layers: number) => Input
}

/**
 * What tests draw of an algorithm's settings: `settings` makes them of the drawn values and the model's
 * number of layers.
 */
export const arbitrary = <const D extends Draws, Input>(
  draws: D,
  settings: (drawn: Drawn<D>, layers: number) => Input
): Arbitrary<Input> => ({ draws, settings: (drawn, layers) => settings(drawn as Drawn<D>, layers) })

/** The fields that are said; what is undefined is left to its default. */
export const said = <F extends Readonly<Record<string, unknown>>>(
  fields: F
): { readonly [K in keyof F]?: Exclude<F[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    readonly [K in keyof F]?: Exclude<F[K], undefined>
  }

/** A setting that cannot be honoured, beside the others or for this model. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  field: Schema.String,
  value: Schema.Number,
  accepted: Schema.String
}) {
  override get message(): string {
    return `${this.field}: ${this.value} is not accepted; expected ${this.accepted}`
  }
}
