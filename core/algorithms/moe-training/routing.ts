// How many tokens of each rank choose each expert: drawn with a stated skew, or counted in a recorded routing. What the
// program reads where no token is dropped. Rational arithmetic only, so that draws are the same everywhere.
import { Random } from "../../random.ts"

export interface RoutingSizes {
  readonly ranks: number
  /** Tokens of one rank. */
  readonly tokens: number
  readonly experts: number
  readonly topK: number
}

/** Counts [ranks * experts], rank by rank. */
export type Choices = Int32Array

/**
 * Every token draws topK distinct experts. In each layer the experts have an order of their own, and the i-th is
 * 1 / (1 + skew i) as likely as the first. `skew` 0 draws nothing: all experts get as many as can be.
 */
export const drawChoices = (
  sizes: RoutingSizes,
  skew: number,
  seed: number,
  layer: number,
  step: number
): Choices => {
  const { ranks, tokens, experts, topK } = sizes
  const counts = new Int32Array(ranks * experts)
  if (skew === 0) {
    for (let rank = 0; rank < ranks; rank++) {
      for (let i = 0; i < tokens * topK; i++) counts[rank * experts + ((i + rank) % experts)]!++
    }
    return counts
  }
  // The order stays from step to step: experts stay hot.
  const shuffle = new Random(seed).split(`order of layer ${layer}`)
  const order = Array.from({ length: experts }, (_, expert) => expert)
  for (let i = experts - 1; i > 0; i--) {
    const j = shuffle.below(i + 1)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const weights = new Float64Array(experts)
  order.forEach((expert, i) => (weights[expert] = 1 / (1 + skew * i)))
  const random = new Random(seed).split(`layer ${layer} step ${step}`)
  const taken = new Uint8Array(experts)
  for (let rank = 0; rank < ranks; rank++) {
    for (let token = 0; token < tokens; token++) {
      taken.fill(0)
      for (let k = 0; k < topK; k++) {
        let left = 0
        for (let e = 0; e < experts; e++) if (taken[e] === 0) left += weights[e]!
        let at = random.uniform() * left
        let chosen = -1
        for (let e = 0; e < experts; e++) {
          if (taken[e] === 1) continue
          chosen = e
          at -= weights[e]!
          if (at < 0) break
        }
        taken[chosen] = 1
        counts[rank * experts + chosen]!++
      }
    }
  }
  return counts
}

/** One layer and step of a recorded routing: experts of each token, in order of tokens. */
export type RecordedTokens = ReadonlyArray<ReadonlyArray<number>>

/** Tokens in blocks to ranks, from the first again where there are too few. Throws RangeError where none are recorded. */
export const countChoices = (sizes: RoutingSizes, recorded: RecordedTokens): Choices => {
  const { ranks, tokens, experts } = sizes
  if (recorded.length === 0) throw new RangeError("a routing without tokens")
  const counts = new Int32Array(ranks * experts)
  for (let rank = 0; rank < ranks; rank++) {
    for (let token = 0; token < tokens; token++) {
      for (const expert of recorded[(rank * tokens + token) % recorded.length]!)
        counts[rank * experts + expert]!++
    }
  }
  return counts
}

/** Tokens of the busiest expert over the mean of all: 1 is balanced. */
export const expertImbalance = (choices: Choices, experts: number): number => {
  const loads = new Float64Array(experts)
  choices.forEach((count, i) => (loads[i % experts]! += count))
  const total = loads.reduce((sum, load) => sum + load, 0)
  return total === 0 ? 1 : (Math.max(...loads) * experts) / total
}
