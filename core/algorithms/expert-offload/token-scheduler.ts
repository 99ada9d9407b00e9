// ExpertFlow's token scheduler: divides the tokens of two batches into two of equal size, so that tokens which use the same
// experts go together. Minimises the experts that the two batches touch, summed over both (the paper's Eq. 2), by a
// k-means-like search with medoids; equal sizes are kept throughout, so the result is a permutation by construction.
import type { Random } from "../../random.ts"

/** Experts a token is expected to use: 1 where it is, over [layers * experts]. */
type TokenPattern = Uint8Array

interface TokenGroups {
  readonly first: ReadonlyArray<number>
  readonly second: ReadonlyArray<number>
}

const distance = (a: TokenPattern, b: TokenPattern): number => {
  let differing = 0
  for (let i = 0; i < a.length; i++) differing += a[i]! ^ b[i]!
  return differing
}

/** Experts touched by a group: the paper's |R_k|. */
export const touched = (tokens: ReadonlyArray<number>, patterns: ReadonlyArray<TokenPattern>): number => {
  const union = new Uint8Array(patterns[0]?.length ?? 0)
  for (const token of tokens) for (let i = 0; i < union.length; i++) union[i]! |= patterns[token]![i]!
  return union.reduce((sum, one) => sum + one, 0)
}

const mostRounds = 10

/**
 * Two groups of equal size (the first has one more token where their number is odd). Never worse than the order given:
 * where the search finds nothing better, the first half and the second half stay as they are.
 */
export const scheduleTokens = (patterns: ReadonlyArray<TokenPattern>, random: Random): TokenGroups => {
  const count = patterns.length
  const tokens = patterns.map((_, token) => token)
  const half = Math.ceil(count / 2)
  let best = { first: tokens.slice(0, half), second: tokens.slice(half) }
  if (count < 3) return best
  let fewest = touched(best.first, patterns) + touched(best.second, patterns)
  const start = random.below(count)
  let medoids: readonly [number, number] = [start, (start + 1 + random.below(count - 1)) % count]
  for (let round = 0; round < mostRounds; round++) {
    const groups = divide(tokens, patterns, medoids, half)
    const experts = touched(groups.first, patterns) + touched(groups.second, patterns)
    if (experts < fewest) {
      fewest = experts
      best = groups
    }
    const next = [medoidOf(groups.first, patterns), medoidOf(groups.second, patterns)] as const
    if (next[0] === medoids[0] && next[1] === medoids[1]) break
    medoids = next
  }
  return best
}

/** Those nearer to the first medoid than to the second, by how much: exactly `half` of them. */
const divide = (
  tokens: ReadonlyArray<number>,
  patterns: ReadonlyArray<TokenPattern>,
  [one, other]: readonly [number, number],
  half: number
) => {
  const preference = tokens.map(
    (token) => distance(patterns[token]!, patterns[one]!) - distance(patterns[token]!, patterns[other]!)
  )
  const order = tokens.toSorted((a, b) => preference[a]! - preference[b]! || a - b)
  const ascending = (a: number, b: number) => a - b
  return { first: order.slice(0, half).toSorted(ascending), second: order.slice(half).toSorted(ascending) }
}

/** The member nearest to all others. */
const medoidOf = (tokens: ReadonlyArray<number>, patterns: ReadonlyArray<TokenPattern>): number => {
  let medoid = tokens[0]!
  let least = Infinity
  for (const token of tokens) {
    const sum = tokens.reduce((total, other) => total + distance(patterns[token]!, patterns[other]!), 0)
    if (sum < least) {
      least = sum
      medoid = token
    }
  }
  return medoid
}
