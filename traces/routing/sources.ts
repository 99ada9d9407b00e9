// Which tools' recordings of routings are read: names alone, for who only offers them.

/** Tools whose recordings of routings are read (docs/formats.md). */
export const routingSources = [
  "vllm",
  "sglang",
  "megatron",
  "llama-cpp",
  "moe-beyond",
  "json",
  "rows"
] as const
/** One of `routingSources`. */
export type RoutingSource = (typeof routingSources)[number]
