// How ChunkKV chooses whole chunks of a prompt: the paper's Algorithm 1 (arXiv:2502.00299) and NVIDIA's kvpress.
import { choose, observed, poolScores, windowScores, type LayerChoice } from "./choice.ts"
import { defaultKeep, type SizeSettings } from "./kept.ts"
import type { DecoderModel } from "./model.ts"

/** What ChunkKV's settings say of chunks. */
interface ChunkSettings extends SizeSettings {
  readonly chunk?: number | undefined
  readonly window?: number | undefined
  readonly kernel: number
  readonly pooling: "avg" | "max"
}

/** Tokens in a chunk, by the rule, where nobody says. */
export const usualChunk = { paper: 10, kvpress: 20 } as const

/**
 * Algorithm 1: bare products of the window's queries with all keys, summed over window, heads and chunk; the floor(limit /
 * chunk) best chunks in their order, of these the first limit - window tokens, and the last window tokens. The paper leaves
 * open what becomes of a token that is among both: here it stays once, so that fewer than `limit` tokens may stay.
 */
export const paperChunks = (
  settings: ChunkSettings,
  model: DecoderModel,
  time: number,
  limit: number
): LayerChoice => {
  const chunk = settings.chunk ?? usualChunk.paper
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
export const kvpressChunks = (
  settings: ChunkSettings,
  model: DecoderModel,
  time: number,
  limit: number
): LayerChoice => {
  const chunk = settings.chunk ?? usualChunk.kvpress
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
  if (budget !== undefined) return Math.floor(Math.min(time, budget) / (chunk ?? usualChunk.kvpress))
  const ratio = 1 - (keep ?? defaultKeep)
  return Math.trunc(chunks * (1 - ratio))
}
