// What is generated: a batch of prompts of equal length, and so many tokens after each. Steps are numbered from the first
// that runs: the prefill, if there is one, then a step for each token.

export interface Workload {
  /** Sequences that are generated together. */
  readonly batch: number
  readonly promptTokens: number
  /** False: the caches are taken as filled, and generation begins at the first decoding step. */
  readonly prefill: boolean
  readonly decodeTokens: number
}

export interface WorkloadStep {
  readonly step: number
  readonly phase: "prefill" | "decode"
  /** Over all sequences. */
  readonly tokens: number
  /** Position of the first token of this step in each sequence. */
  readonly position: number
}

export const stepsOf = ({
  batch,
  promptTokens,
  prefill,
  decodeTokens
}: Workload): ReadonlyArray<WorkloadStep> => {
  const decode = Array.from({ length: decodeTokens }, (_, token): WorkloadStep => ({
    step: token + (prefill ? 1 : 0),
    phase: "decode",
    tokens: batch,
    position: promptTokens + token
  }))
  if (!prefill) return decode
  return [{ step: 0, phase: "prefill", tokens: batch * promptTokens, position: 0 }, ...decode]
}
