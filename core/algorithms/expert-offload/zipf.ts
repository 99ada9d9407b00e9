// How unequally popular experts are.
import { power } from "../../elementary.ts"

/** Zipf's law: the probability of the i-th most popular of n is proportional to 1 / i^s. */
export const zipf = (n: number, s: number): Float64Array => {
  const weights = Float64Array.from({ length: n }, (_, i) => power(i + 1, -s))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}
