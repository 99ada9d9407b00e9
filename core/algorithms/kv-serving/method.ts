// A way to keep a key/value cache small, as a value. Knows none of them; methods.ts lists them.
import { nameOf, type Algorithm, type Arbitrary, type SettingsSchema } from "../algorithm.ts"
import type { LayerChoice } from "./choice.ts"
import type { DecoderModel } from "./model.ts"

/** A prompt of `time` tokens of which at most `limit` are to stay. */
interface Prompt {
  readonly time: number
  readonly limit: number
  /** Where its examples begin, if it says so. */
  readonly shots: ReadonlyArray<number> | undefined
}

/** What a test may limit of drawn settings. */
interface DrawLimits {
  /** Largest window, chunk and shot, in tokens. */
  readonly maxTokens: number
  /** Whether generated tokens may be given up. */
  readonly decodeEviction: boolean
}

/** Methods, not properties: one of a list stands where any is wanted, and is asked about its own settings only. */
export interface CacheMethod<S extends SettingsSchema = SettingsSchema> extends Algorithm<S> {
  /** Whether how many tokens stay is only known when the choice has been made: it must be read. */
  readonly mustBeRead: boolean
  /** The choice of every layer, for a prompt that does not stay whole. */
  choices(settings: S["Type"], model: DecoderModel, prompt: Prompt): ReadonlyArray<LayerChoice>
  /** Whether nothing of the prompt can stay. Default: something does. */
  keepsNothing?(settings: S["Type"], prompt: Prompt): boolean
  /** Share of the generated tokens that stays, one at least. Default: all of them. */
  generatedShare?(settings: S["Type"]): number
  /** Settings that have no effect beside the others, a sentence each. */
  ignored?(settings: S["Type"]): ReadonlyArray<string>
  arbitrary(limits: DrawLimits): Arbitrary<S["Encoded"]>
}

/** The value, named as its schema says; its choice is exact unless it says otherwise. */
export const cacheMethod = <S extends SettingsSchema>(
  parts: Omit<CacheMethod<S>, "name" | "mustBeRead"> & { readonly mustBeRead?: boolean }
): CacheMethod<S> => ({ name: nameOf(parts.settings), mustBeRead: false, ...parts })
