// What a serving scenario says in vain of what is kept, as the lengths of its requests show: settings with which as much stays, chosen
// alike, as without them.
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import { usualChunk } from "../../../core/algorithms/kv-serving/chunks.ts"
import {
  isSized,
  keptGenerated,
  keptTokens,
  planChoices
} from "../../../core/algorithms/kv-serving/choices.ts"
import { cacheMethodNamed, type CacheSettings } from "../../../core/algorithms/kv-serving/methods.ts"
import type { DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import type { ServingRequest } from "../../../core/algorithms/kv-serving/sequence.ts"
import { greatest } from "../../../core/extremes.ts"
import { asPlannedWarnings } from "../../as-planned.ts"

export const keptWarnings = (
  settings: CacheSettings,
  model: DecoderModel,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => [
  ...windowWarnings(settings, model, requests),
  ...nothingWarnings(settings, requests),
  ...wholeWarnings(settings, requests),
  ...alikeWarnings(settings, model, requests),
  ...reuseWarnings(settings, model)
]

/** Whether every prompt stays whole. */
export const allStay = (settings: CacheSettings, requests: ReadonlyArray<ServingRequest>): boolean =>
  requests.every(({ promptTokens }) => keptTokens(settings, promptTokens) === promptTokens)

/** A budget that every prompt is within; that a share of 1 keeps all it says itself. */
const wholeWarnings = (
  settings: CacheSettings,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  if (!isSized(settings) || settings.budget === undefined || !allStay(settings, requests)) return []
  const longest = greatest(requests.map(({ promptTokens }) => promptTokens))
  return [`algorithm.budget keeps every prompt whole, as a full cache: the longest has ${longest} tokens`]
}

/** Of those that differ in their prompts' lengths, or in where examples begin, one each. */
const unlike = (requests: ReadonlyArray<ServingRequest>): ReadonlyArray<ServingRequest> => [
  ...new Map(
    requests.map((request) => [`${request.promptTokens} ${request.shots?.join(",") ?? ""}`, request])
  ).values()
]

/** Settings with which as much stays, chosen alike, as with the usual ones; how long a window is told by itself. */
const alikeWarnings = (
  settings: CacheSettings,
  model: DecoderModel,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  const prompts = unlike(requests)
  const mostGenerated = greatest(requests.map(({ outputTokens }) => outputTokens))
  /** Asked of one length after another, for most settings tell at the first. */
  const isAlike = (other: CacheSettings): boolean => {
    const chosen = (by: CacheSettings, { promptTokens, shots }: ServingRequest): string =>
      JSON.stringify(planChoices(by, model, promptTokens, shots))
    if (!prompts.every((prompt) => chosen(settings, prompt) === chosen(other, prompt))) return false
    for (let generated = 0; generated < mostGenerated; generated++)
      if (keptGenerated(settings, generated) !== keptGenerated(other, generated)) return false
    return true
  }
  return asPlannedWarnings({
    own: settings,
    usual: {
      ...defaultsOf(cacheMethodNamed(settings.name).settings),
      ...("rule" in settings ? { chunk: usualChunk[settings.rule] } : {})
    },
    fields: ["beta", "rule", "chunk", "reuse", "shot", "decodeKeep"],
    what: "what is kept is",
    told: [],
    isAlike: (other) => isAlike(other as CacheSettings)
  })
}

/** Layers that share one choice where there are not so many. */
const reuseWarnings = (settings: CacheSettings, { layers }: DecoderModel): ReadonlyArray<string> =>
  "reuse" in settings && settings.reuse > layers && layers > 1
    ? [`algorithm.reuse ${settings.reuse} is ${layers} here: there are no more layers to share a choice`]
    : []

/** A window that is not the usual one, and longer than what it is cut to even for the longest prompt. */
const windowWarnings = (
  settings: CacheSettings,
  model: DecoderModel,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  if (!("window" in settings) || settings.window === undefined) return []
  const usual: unknown = Reflect.get(defaultsOf(cacheMethodNamed(settings.name).settings), "window")
  if (settings.window === usual) return []
  const longest = requests.reduce((most, { promptTokens }) => Math.max(most, promptTokens), 0)
  const chosen = (window: number) => JSON.stringify(planChoices({ ...settings, window }, model, longest))
  return chosen(settings.window) === chosen(settings.window + 1)
    ? ["algorithm.window has no effect at this length: it is cut to what there is, or stays, of every prompt"]
    : []
}

/** Prompts of which nothing stays, as their parts are longer than what may. */
const nothingWarnings = (
  settings: CacheSettings,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  const method = cacheMethodNamed(settings.name)
  const lost = requests.filter(({ promptTokens: time, shots }) => {
    const limit = keptTokens(settings, time)
    return limit < time && method.keepsNothing?.(settings, { time, limit, shots }) === true
  })
  if (lost.length === 0) return []
  const { promptTokens } = lost[0]!
  return [
    `${settings.name} keeps nothing of ${lost.length} of ${requests.length} prompts: of the ${promptTokens} tokens of one at most ${keptTokens(settings, promptTokens)} may stay, and none of its shots is as short (algorithm.shot, keep or budget)`
  ]
}
