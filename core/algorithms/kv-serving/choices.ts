// What a scenario's method keeps of a prompt and of what is generated, and which of its settings contradict each other. Pure: it
// sees lengths, never scores.
import * as Result from "effect/Result"
import { shareOf } from "../../kernels/kv-cache.ts"
import { SettingsError } from "../algorithm.ts"
import type { LayerChoice } from "./choice.ts"
import { keptOf } from "./kept.ts"
import { cacheMethodNamed, type CacheSettings } from "./methods.ts"
import type { DecoderModel } from "./model.ts"

/** Whether settings say that only a part of a prompt stays. */
export const isSized = (settings: CacheSettings): settings is Exclude<CacheSettings, { name: "full" }> =>
  "keep" in cacheMethodNamed(settings.name).settings.fields

/** Tokens that stay of a prompt, for settings that say so in tokens or as a share. */
export const keptTokens = (settings: CacheSettings, time: number): number =>
  isSized(settings) ? keptOf(settings, time) : time

/** Share of the generated tokens that stays. */
export const generatedShare = (settings: CacheSettings): number =>
  cacheMethodNamed(settings.name).generatedShare?.(settings) ?? 1

/** Generated tokens that stay, once `generated` have been appended. */
export const keptGenerated = (settings: CacheSettings, generated: number): number =>
  shareOf(generatedShare(settings), generated)

/** Settings that contradict each other, whatever the prompt. */
export const checkSettings = (settings: CacheSettings): Result.Result<void, SettingsError> => {
  const fail = (field: string, value: number, accepted: string) =>
    Result.fail(new SettingsError({ field, value, accepted }))
  if (isSized(settings) && settings.keep !== undefined && settings.budget !== undefined)
    return fail("budget", settings.budget, "keep or budget, not both")
  if ("kernel" in settings && settings.kernel % 2 === 0)
    return fail("kernel", settings.kernel, "an odd number")
  return Result.succeed(undefined)
}

/**
 * The choice of every layer for a prompt of `time` tokens.
 *
 * @param shots where the prompt's examples begin; default: every `shot` tokens
 */
export const planChoices = (
  settings: CacheSettings,
  model: DecoderModel,
  time: number,
  shots?: ReadonlyArray<number>
): ReadonlyArray<LayerChoice> => {
  const limit = keptTokens(settings, time)
  return limit === time
    ? Array.from({ length: model.layers }, () => ({ kind: "all" }))
    : cacheMethodNamed(settings.name).choices(settings, model, { time, limit, shots })
}
