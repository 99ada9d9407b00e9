// Generated requests to a served model, for schedulers that serve them.
import * as fc from "fast-check"
import type { ServingRequest } from "../core/algorithms/kv-serving/sequence.ts"

/** How many requests there are, and how long. */
export interface RequestConstraints {
  /** Default 1. */
  readonly minRequests?: number
  /** Default 6. */
  readonly maxRequests?: number
  /** Default 60. */
  readonly maxPromptTokens?: number
  /** Default 9; one token is asked for now and then. */
  readonly maxOutputTokens?: number
  /** Longest time between two arrivals, seconds. Default 2; many come together. */
  readonly maxGapSeconds?: number
}

/** Requests in order of arrival, numbered from 0. */
export const servingRequests = (
  constraints: RequestConstraints = {}
): fc.Arbitrary<ReadonlyArray<ServingRequest>> => {
  const { minRequests = 1, maxRequests = 6, maxPromptTokens = 60 } = constraints
  const { maxOutputTokens = 9, maxGapSeconds = 2 } = constraints
  const request = fc.record({
    promptTokens: fc.integer({ min: 1, max: maxPromptTokens }),
    outputTokens: fc.integer({ min: 1, max: maxOutputTokens }),
    // Multiples of 2^-10 s, so that sums of them are exact.
    gapSeconds: fc.oneof(
      fc.constant(0),
      fc.integer({ min: 0, max: Math.floor(maxGapSeconds * 1024) }).map((ticks) => ticks / 1024)
    )
  })
  return fc.array(request, { minLength: minRequests, maxLength: maxRequests }).map((drawn) => {
    let arrivalSeconds = 0
    return drawn.map(({ promptTokens, outputTokens, gapSeconds }, id) => {
      arrivalSeconds += gapSeconds
      return { id, arrivalSeconds, promptTokens, outputTokens }
    })
  })
}
