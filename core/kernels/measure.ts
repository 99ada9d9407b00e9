// Kinds of measurements: what a table of timed ops may hold, and by which sizes. A kernel's declaration says of which kind it
// is; core/cost looks rows up by kind, sizes and dtype. Knows no table and no time.

/** What a time depends on, by name: {m, k, n}, {bytes}, ... Counts and bytes; means may be fractions. */
export type Sizes = Readonly<Record<string, number>>

/**
 * - `product`: [m, k] times [k, n].
 * - `decode_attention`: one query row of each of `batch` sequences over `kv` cached rows each (their mean).
 * - `prefill_attention`: causal attention of `batch` sequences of `tokens` rows over themselves.
 * - `h2d`, `d2h`: a copy of `bytes` between (pinned) host and device memory.
 * - `copy`: a copy of `bytes` inside device memory, which reads and writes them.
 * - `traffic`: whatever else runs as fast as `bytes` cross memory: those read and those written.
 */
export type Measure =
  "product" | "decode_attention" | "prefill_attention" | "h2d" | "d2h" | "copy" | "traffic"

/** The sizes of each kind. */
export const measureSizes = {
  product: ["m", "k", "n"],
  decode_attention: ["batch", "kv", "heads", "kvHeads", "headWidth"],
  prefill_attention: ["batch", "tokens", "heads", "kvHeads", "headWidth"],
  h2d: ["bytes"],
  d2h: ["bytes"],
  copy: ["bytes"],
  traffic: ["bytes"]
} as const satisfies Record<Measure, ReadonlyArray<string>>

/** One measurable piece of a launch, done so many times in it. */
export interface Part {
  readonly measure: Measure
  readonly sizes: Sizes
  readonly times: number
}

/** Kinds that compute, by sizes that count numbers; the others only move the bytes they say. */
export const countsArithmetic = (measure: Measure): boolean =>
  measure === "product" || measure === "decode_attention" || measure === "prefill_attention"
