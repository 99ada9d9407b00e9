// What each method keeps of a prompt, layer by layer: which kernels choose, and how much room their choice takes. Pure: it
// sees lengths, never scores. ChunkKV: arXiv:2502.00299 (Algorithms 1 and 2) and NVIDIA's kvpress; ShotKV: arXiv:2502.01941.
import * as Result from "effect/Result"
import type { KernelName } from "../../kernels/catalogue.ts"
import { printIntegers } from "../../kernels/integer-list.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { headWidthOf } from "../../models/decoder-layer.ts"
import type { DecoderModel } from "./model.ts"
import type { CacheSettings } from "./settings.ts"

/** One kernel of a choice. The first reads the layer's queries and keys, or nothing; each other reads what came before. */
export interface ChoiceCall {
  readonly kernel: KernelName
  readonly attributes: Attributes
  readonly reads: "queries and keys" | "nothing" | "previous"
}

export type LayerChoice =
  /** Every token stays. */
  | { readonly kind: "all" }
  /** The tokens that an earlier layer chose (ChunkKV's index reuse). */
  | { readonly kind: "as"; readonly layer: number }
  | {
      readonly kind: "choose"
      readonly calls: ReadonlyArray<ChoiceCall>
      /** Rows of the list that the last call makes: at most so many tokens stay. */
      readonly room: number
      /** Whether exactly `room` tokens stay. Where not, the list must be read to know. */
      readonly exact: boolean
    }

/** A setting that no plan can follow. */
export interface ChoiceFailure {
  readonly field: string
  readonly value: string
  readonly accepted: string
}

/** Slack for products such as 0.7 * 10, which fall just short of a whole number. */
const slack = 1e-9

/** Tokens that stay of a prompt, for settings that say so in tokens or as a share. */
export const keptTokens = (settings: CacheSettings, time: number): number => {
  if (settings.name === "full") return time
  if (settings.budget !== undefined) return Math.min(time, settings.budget)
  return Math.min(time, Math.max(1, Math.floor((settings.keep ?? defaultKeep) * time + slack)))
}

const defaultKeep = 0.1

/** Generated tokens that stay, once `generated` have been appended. */
export const keptGenerated = (settings: CacheSettings, generated: number): number =>
  settings.name === "shotkv" && generated > 0
    ? Math.max(1, Math.floor(settings.decodeKeep * generated + slack))
    : generated

/** Settings that contradict each other, whatever the prompt. */
export const checkSettings = (settings: CacheSettings): Result.Result<void, ChoiceFailure> => {
  if (settings.name === "full") return Result.succeed(undefined)
  if (settings.keep !== undefined && settings.budget !== undefined)
    return Result.fail({
      field: "budget",
      value: String(settings.budget),
      accepted: "keep or budget, not both"
    })
  if ("kernel" in settings && settings.kernel % 2 === 0)
    return Result.fail({ field: "kernel", value: String(settings.kernel), accepted: "an odd number" })
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
  const layers = Array.from({ length: model.layers }, (_, layer) => layer)
  const limit = keptTokens(settings, time)
  if (settings.name === "full" || limit === time) return layers.map(() => ({ kind: "all" }))
  switch (settings.name) {
    case "streaming-llm": {
      const attributes = { time, sinks: Math.min(settings.sinks, limit), count: limit }
      return layers.map(() =>
        choose([{ kernel: "kv.sink_tokens", attributes, reads: "nothing" }], limit, true)
      )
    }
    case "h2o": {
      // Attention accumulated over every query: a window of the whole prompt.
      const scores = windowScores(model, time, true)
      const pool = poolScores({ window: settings.window, kernel: 1, pooling: "avg" }, limit)
      return layers.map(() => choose([scores, pool, topTokens(limit)], limit, true))
    }
    case "snapkv":
      return layers.map(() => observed(settings, model, limit))
    case "pyramidkv":
      return pyramidRooms(settings, model.layers, time, limit).map((room) =>
        room >= time ? { kind: "all" } : observed(settings, model, room)
      )
    case "chunkkv": {
      const leader =
        settings.rule === "paper"
          ? paperChunks(settings, model, time, limit)
          : kvpressChunks(settings, model, time, limit)
      return layers.map((layer) => {
        const first = layer - (layer % settings.reuse)
        return layer === first ? leader : { kind: "as", layer: first }
      })
    }
    case "shotkv": {
      const starts = printIntegers(shots ?? everyShot(settings.shot, time))
      const calls: ReadonlyArray<ChoiceCall> = [
        windowScores(model, Math.min(settings.window, time), true),
        { kernel: "kv.shot_scores", attributes: { starts }, reads: "previous" },
        { kernel: "kv.top_shots", attributes: { time, starts, budget: limit }, reads: "previous" }
      ]
      return layers.map(() => choose(calls, limit, false))
    }
  }
}

/** At most so many tokens stay in each layer; exactly, where the layer's choice is exact. */
export const roomsOf = (choices: ReadonlyArray<LayerChoice>, time: number): ReadonlyArray<number> =>
  choices.map((choice) => {
    if (choice.kind === "all") return time
    const own = choice.kind === "as" ? choices[choice.layer]! : choice
    return own.kind === "choose" ? own.room : time
  })

const choose = (calls: ReadonlyArray<ChoiceCall>, room: number, exact: boolean): LayerChoice => ({
  kind: "choose",
  calls,
  room,
  exact
})

const windowScores = (model: DecoderModel, window: number, softmax: boolean): ChoiceCall => ({
  kernel: "kv.window_scores",
  attributes: {
    heads: model.heads,
    kvHeads: model.kvHeads,
    headWidth: headWidthOf(model),
    window,
    softmax
  },
  reads: "queries and keys"
})

interface Observation {
  readonly window: number
  readonly kernel: number
  readonly pooling: "avg" | "max"
}

/** A window longer than what may stay is cut to it. */
const poolScores = ({ window, kernel, pooling }: Observation, limit: number): ChoiceCall => ({
  kernel: "kv.pool_scores",
  attributes: { window: Math.min(window, limit), kernel, mode: pooling },
  reads: "previous"
})

const topTokens = (count: number): ChoiceCall => ({
  kernel: "kv.top_tokens",
  attributes: { count },
  reads: "previous"
})

/** SnapKV: the best of the tokens before the window by pooled scores, and the window; each key/value head its own. */
const observed = (settings: Observation, model: DecoderModel, limit: number): LayerChoice =>
  choose(
    [
      windowScores(model, Math.min(settings.window, limit), true),
      poolScores(settings, limit),
      topTokens(limit)
    ],
    limit,
    true
  )

/**
 * PyramidKV's room in each layer, window included: linear from the lowest layer to the highest, where it is 1 / beta of the
 * mean; the mean is `limit`. No layer has more room than tokens: what the lowest cannot use goes to the highest.
 */
const pyramidRooms = (
  settings: Extract<CacheSettings, { name: "pyramidkv" }>,
  layers: number,
  time: number,
  limit: number
): ReadonlyArray<number> => {
  const window = Math.min(settings.window, limit)
  const mean = limit - window
  const least = Math.floor(mean / settings.beta)
  const most = Math.min(2 * mean - least, time - window)
  const last = 2 * mean - most
  return Array.from({ length: layers }, (_, layer) =>
    layers === 1 ? limit : window + most - Math.round((layer * (most - last)) / (layers - 1))
  )
}

type ChunkSettings = Extract<CacheSettings, { name: "chunkkv" }>

/**
 * Algorithm 1: bare products of the window's queries with all keys, summed over window, heads and chunk; the floor(limit /
 * chunk) best chunks in their order, of these the first limit - window tokens, and the last window tokens. The paper leaves
 * open what becomes of a token that is among both: here it stays once, so that fewer than `limit` tokens may stay.
 */
const paperChunks = (
  settings: ChunkSettings,
  model: DecoderModel,
  time: number,
  limit: number
): LayerChoice => {
  const chunk = settings.chunk ?? 10
  const window = Math.min(settings.window ?? 32, limit)
  const count = Math.max(1, Math.floor(limit / chunk))
  const attributes = { time, chunk, count, limit: limit - window, window }
  return choose(
    [
      windowScores(model, window, false),
      { kernel: "kv.chunk_scores", attributes: { chunk, reduce: "sum" }, reads: "previous" },
      { kernel: "kv.top_chunks", attributes, reads: "previous" }
    ],
    Math.min(time, Math.min(limit - window, count * chunk) + window),
    false
  )
}

/**
 * kvpress's ChunkKVPress over its SnapKVPress: mean score of each chunk over tokens, summed over key/value heads; so many
 * whole chunks stay as int(chunks * (1 - ratio)), truncated in floating point as there (20 chunks at ratio 0.9 keep 1).
 * A prompt shorter than a chunk is SnapKV's.
 */
const kvpressChunks = (
  settings: ChunkSettings,
  model: DecoderModel,
  time: number,
  limit: number
): LayerChoice => {
  const chunk = settings.chunk ?? 20
  const window = Math.min(settings.window ?? 64, time)
  const { kernel, pooling } = settings
  if (time < chunk) return observed({ window, kernel, pooling }, model, limit)
  const chunks = Math.ceil(time / chunk)
  const count = Math.max(1, chunksKept(chunks, settings, time))
  return choose(
    [
      windowScores(model, window, true),
      poolScores({ window, kernel, pooling }, window),
      { kernel: "kv.chunk_scores", attributes: { chunk, reduce: "mean" }, reads: "previous" },
      {
        kernel: "kv.top_chunks",
        attributes: { time, chunk, count, limit: time, window: 0 },
        reads: "previous"
      }
    ],
    Math.min(time, count * chunk),
    false
  )
}

/** kvpress is told the share removed, and computes the share kept from it again: both subtractions round. */
const chunksKept = (chunks: number, { keep, budget, chunk }: ChunkSettings, time: number): number => {
  if (budget !== undefined) return Math.floor(Math.min(time, budget) / (chunk ?? 20))
  const ratio = 1 - (keep ?? defaultKeep)
  return Math.trunc(chunks * (1 - ratio))
}

const everyShot = (shot: number, time: number): ReadonlyArray<number> =>
  Array.from({ length: Math.ceil(time / shot) }, (_, index) => index * shot)
