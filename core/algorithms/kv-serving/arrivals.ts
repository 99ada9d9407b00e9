// Requests of a seeded process: when they arrive and how long they are. Exact on every machine: waiting times are drawn by
// comparisons alone, without a logarithm.
import type { Random } from "../../random.ts"
import type { ServingRequest } from "./sequence.ts"

/** A number, or one drawn evenly from a range, both ends included. */
type Lengths = number | { readonly from: number; readonly to: number }

interface ArrivalProcess {
  readonly count: number
  readonly prompt: Lengths
  readonly output: Lengths
  /** Mean requests per second; Infinity: all at once. */
  readonly perSecond: number
  /** `poisson`: independent of each other. `even`: one every 1 / perSecond. */
  readonly arrivals: "poisson" | "even"
}

export const drawRequests = (
  { count, prompt, output, perSecond, arrivals }: ArrivalProcess,
  random: Random
): ReadonlyArray<ServingRequest> => {
  const [gaps, prompts, outputs] = ["gaps", "prompts", "outputs"].map((name) => random.split(name))
  let arrivalSeconds = 0
  return Array.from({ length: count }, (_, id) => {
    if (id > 0 && perSecond < Infinity)
      arrivalSeconds += (arrivals === "poisson" ? exponential(gaps!) : 1) / perSecond
    return {
      id,
      arrivalSeconds,
      promptTokens: drawLength(prompt, prompts!),
      outputTokens: drawLength(output, outputs!)
    }
  })
}

const drawLength = (length: Lengths, random: Random): number =>
  typeof length === "number" ? length : length.from + random.below(length.to - length.from + 1)

/**
 * Mean 1. Von Neumann (1951): draw numbers while they fall; if an odd number of them fell, the first is the fraction;
 * otherwise count one whole and draw again.
 */
export const exponential = (random: Random): number => {
  for (let whole = 0; ; whole++) {
    const first = random.uniform()
    let last = first
    let fallen = 1
    for (let next = random.uniform(); next < last; next = random.uniform()) {
      last = next
      fallen++
    }
    if (fallen % 2 === 1) return whole + first
  }
}
