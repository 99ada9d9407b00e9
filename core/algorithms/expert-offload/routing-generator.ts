// Routing made up from published statistics of locality: how skewed the popularity of experts is, how often a token goes to
// an expert that the token before it went to, and how much sequences of different topics differ. Seeded; no model is run.
import { Random } from "../../random.ts"
import type { ExpertShape } from "./demand.ts"
import { zipf } from "./zipf.ts"

export interface RoutingStatistics {
  /** Exponent of the popularity of a layer's experts; 0: all equally popular. */
  readonly zipf: number
  /** Expected share of a token's experts that the sequence's next token uses again; several: for equal parts of the depth. */
  readonly repeat: ReadonlyArray<number>
  /** Kinds of sequences; each has favourites of its own. */
  readonly topics: number
}

/** Statistics of published traces; the sources are in docs/expert-offload.md. */
export const routingPresets = {
  /** Llama-4-Maverick decoding: top 1 of 128. */
  llama4: { zipf: 1.5, repeat: [0.33], topics: 8 },
  /** DeepSeek-V2-Lite prompts: top 6 of 64, nearly balanced. */
  "deepseek-v2-lite": { zipf: 0.2, repeat: [0.26], topics: 1 },
  /** Mixtral 8x7B: top 2 of 8; its first choice repeats in 14, 27 and 22 % of tokens by depth. */
  mixtral: { zipf: 0.15, repeat: [0.28, 0.36, 0.32], topics: 1 },
  /** Switch: top 1; no routing statistics are published, so these are assumed. */
  switch: { zipf: 0.8, repeat: [0.3], topics: 4 },
  /** Every token draws its experts anew, all equally likely. */
  uniform: { zipf: 0, repeat: [0], topics: 1 }
} as const satisfies Readonly<Record<string, RoutingStatistics>>

export type RoutingPreset = keyof typeof routingPresets

/** A generator of tokens for one batch of sequences: every call to `next` is the next token of a sequence at every layer. */
export class RoutingGenerator {
  readonly #shape: ExpertShape
  readonly #topK: number
  readonly #random: Random
  // Cumulative popularity by rank, in units of 2^-32 and rounded, so that the last digit of a power decides nothing.
  readonly #cumulative: Float64Array
  readonly #keep: Float64Array
  // expertOf[topic][layer][rank]
  readonly #experts: ReadonlyArray<ReadonlyArray<Int32Array>>
  readonly #previous: Array<Array<Int32Array | undefined>>

  constructor(
    shape: ExpertShape,
    topK: number,
    sequences: number,
    { zipf: exponent, repeat, topics }: RoutingStatistics,
    random: Random
  ) {
    if (topK > shape.experts) throw new RangeError(`top ${topK} of ${shape.experts} experts`)
    this.#shape = shape
    this.#topK = topK
    this.#random = random.split("tokens")
    let sum = 0
    this.#cumulative = zipf(shape.experts, exponent).map((p) => Math.round((sum += p) * 2 ** 32))
    this.#cumulative[shape.experts - 1] = 2 ** 32
    const chance = this.#overlap(random.split("overlap"))
    this.#keep = Float64Array.from({ length: shape.layers }, (_, layer) => {
      const target = repeat[Math.floor((layer * repeat.length) / shape.layers)]!
      return Math.max(0, (target - chance) / (1 - chance))
    })
    this.#experts = Array.from({ length: topics }, (_, topic) =>
      Array.from({ length: shape.layers }, (__, layer) =>
        permutation(shape.experts, random.split(`topic ${topic} layer ${layer}`))
      )
    )
    this.#previous = Array.from({ length: sequences }, () =>
      Array.from({ length: shape.layers }, () => undefined)
    )
  }

  /** Writes the experts of the sequence's next token at `layer` to `into[at ...]`. */
  next(sequence: number, layer: number, into: Int32Array, at: number): void {
    const random = this.#random
    const ranks = this.#experts[sequence % this.#experts.length]![layer]!
    const chosen: Array<number> = []
    for (const expert of this.#previous[sequence]![layer] ?? []) {
      if (random.uniform() < this.#keep[layer]!) chosen.push(expert)
    }
    while (chosen.length < this.#topK) {
      const expert = ranks[this.#rank(random)]!
      if (!chosen.includes(expert)) chosen.push(expert)
    }
    into.set(chosen, at)
    this.#previous[sequence]![layer] = Int32Array.from(chosen)
  }

  #rank(random: Random): number {
    const draw = random.uint32()
    let [low, high] = [0, this.#cumulative.length - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#cumulative[middle]! > draw) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Share of a draw's experts that an independent draw shares: exact for one expert a token, sampled for more. */
  #overlap(random: Random): number {
    if (this.#topK === 1) {
      let [sum, before] = [0, 0]
      for (const upTo of this.#cumulative) {
        const share = (upTo - before) / 2 ** 32
        sum += share * share
        before = upTo
      }
      return sum
    }
    const inclusion = new Float64Array(this.#shape.experts)
    for (let sample = 0; sample < samples; sample++) {
      const drawn = new Set<number>()
      while (drawn.size < this.#topK) drawn.add(this.#rank(random))
      for (const rank of drawn) inclusion[rank]! += 1 / samples
    }
    return inclusion.reduce((sum, p) => sum + p * p, 0) / this.#topK
  }
}

const samples = 4000

const permutation = (count: number, random: Random): Int32Array => {
  const order = Int32Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const other = random.below(i + 1)
    ;[order[i], order[other]] = [order[other]!, order[i]!]
  }
  return order
}
