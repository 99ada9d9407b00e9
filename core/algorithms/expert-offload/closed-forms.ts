// Hit ratios under independent references (every request draws its expert anew, from fixed probabilities), in closed form.
// What a simulation with routing that has no memory must come near to; real routing has memory, and hits more often.
/** LFU, and any fixed set of the most popular: the sum of the `slots` largest probabilities. */
export const topHitRatio = (probabilities: ArrayLike<number>, slots: number): number =>
  Float64Array.from(probabilities)
    .toSorted()
    .toReversed()
    .subarray(0, slots)
    .reduce((sum, p) => sum + p, 0)

/**
 * LRU by Che's approximation (Che, Tung and Wang 2002): an expert is a hit if it was asked for within the characteristic
 * time T, which solves sum(1 - exp(-p T)) = slots; the hit ratio is sum(p (1 - exp(-p T))).
 */
export const cheHitRatio = (probabilities: ArrayLike<number>, slots: number): number => {
  const p = Array.from(probabilities).filter((one) => one > 0)
  if (slots >= p.length) return 1
  const occupied = (time: number) => p.reduce((sum, one) => sum - Math.expm1(-one * time), 0)
  let low = 0
  let high = 1
  while (occupied(high) < slots) high *= 2
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2
    if (occupied(middle) < slots) low = middle
    else high = middle
  }
  return p.reduce((sum, one) => sum - one * Math.expm1(-one * high), 0)
}
