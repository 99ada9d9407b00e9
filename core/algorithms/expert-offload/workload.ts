// What is generated: a batch of prompts of equal length, and so many tokens after each; where a recorded trace says so, further
// batches after it, of prompts of their own length. Steps are numbered from the first that runs: each batch's prefill, if there
// is one, then a step for each token.

/** A batch of prompts, and what is generated after them. */
export interface Prompts {
  /** Of each sequence. */
  readonly promptTokens: number
  readonly decodeTokens: number
}

/** How much is generated: prompts, decoding steps, and sequences at a time. */
export interface Workload extends Prompts {
  /** Sequences that are generated together. */
  readonly batch: number
  /** Batches that take turns, a decoding step each, with as many sequences; without prefill. Default: 1. */
  readonly batches?: number
  /** False: the caches are taken as filled, and generation begins at the first decoding step. */
  readonly prefill: boolean
  /** Batches that follow the first one, each as it has ended. */
  readonly next?: ReadonlyArray<Prompts>
}

export interface WorkloadStep {
  readonly step: number
  readonly phase: "prefill" | "decode"
  /** Which batch of prompts, from 0. */
  readonly prompts: number
  /** Whose turn it is of the batches that take turns, from 0. */
  readonly turn: number
  /** Over all sequences. */
  readonly tokens: number
}

/** All batches of prompts, in the order in which they are served. */
export const promptsOf = ({ promptTokens, decodeTokens, next = [] }: Workload): ReadonlyArray<Prompts> => [
  { promptTokens, decodeTokens },
  ...next
]

export const stepsOf = (workload: Workload): ReadonlyArray<WorkloadStep> => {
  const { batch, batches = 1, prefill } = workload
  const steps: Array<WorkloadStep> = []
  for (const [prompts, { promptTokens, decodeTokens }] of promptsOf(workload).entries()) {
    if (prefill)
      steps.push({ step: steps.length, phase: "prefill", prompts, turn: 0, tokens: batch * promptTokens })
    for (let token = 0; token < decodeTokens; token++)
      steps.push({ step: steps.length, phase: "decode", prompts, turn: token % batches, tokens: batch })
  }
  return steps
}
