// What serving comes to: times of each request, and the figures that are made of them.
import { greatest } from "../../../core/extremes.ts"
import { cacheBytes, type DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import type { ServingRequest } from "../../../core/algorithms/kv-serving/sequence.ts"
import type { ServingOutcome } from "../../../core/algorithms/kv-serving/server.ts"

/** One request, served. */
interface RequestTimes {
  readonly request: ServingRequest
  readonly firstSeconds: number
  /** NaN where one token was asked for. */
  readonly secondSeconds: number
  readonly lastSeconds: number
  /** Bytes that stay of the prompt. */
  readonly promptBytes: number
}

/** Joins what the ranks report; in order of id. */
export const requestTimes = (
  outcomes: ReadonlyArray<ServingOutcome>,
  model: DecoderModel
): ReadonlyArray<RequestTimes> => {
  const begun = new Map(outcomes.flatMap(({ begun }) => begun.map((one) => [one.request.id, one] as const)))
  return outcomes
    .flatMap(({ finished }) => finished)
    .map(({ request, promptRows, secondSeconds, lastSeconds }): RequestTimes => {
      const { firstSeconds } = begun.get(request.id)!
      return { request, firstSeconds, secondSeconds, lastSeconds, promptBytes: cacheBytes(model, promptRows) }
    })
    .toSorted((a, b) => a.request.id - b.request.id)
}

interface Objective {
  readonly ttft: number
  readonly tpot: number
}

/** Time to first token. */
export const ttftOf = ({ request, firstSeconds }: RequestTimes): number =>
  firstSeconds - request.arrivalSeconds

/** Time per token after the first; NaN where there is none. */
export const tpotOf = ({ request, firstSeconds, lastSeconds }: RequestTimes): number =>
  (lastSeconds - firstSeconds) / (request.outputTokens - 1)

export const servingFigures = (
  times: ReadonlyArray<RequestTimes>,
  outcomes: ReadonlyArray<ServingOutcome>,
  makespanSeconds: number,
  { ttft, tpot }: Objective
) => {
  const ttfts = times.map(ttftOf)
  const several = times.filter(({ request }) => request.outputTokens > 1)
  const tpots = several.map(tpotOf)
  const kept = times.filter(
    (one) => ttftOf(one) <= ttft && (one.request.outputTokens === 1 || tpotOf(one) <= tpot)
  ).length
  const tokens = times.reduce((sum, { request }) => sum + request.outputTokens, 0)
  const steps = outcomes.reduce((sum, { decodeSteps }) => sum + decodeSteps, 0)
  const decoded = outcomes.reduce((sum, { decodedTokens }) => sum + decodedTokens, 0)
  return {
    requestSeconds: mean(times.map(({ request, lastSeconds }) => lastSeconds - request.arrivalSeconds)),
    ttftSeconds: mean(ttfts),
    ttftP99Seconds: percentile(ttfts, 0.99),
    ...(tpots.length === 0
      ? {}
      : {
          tpotSeconds: mean(tpots),
          tpotP99Seconds: percentile(tpots, 0.99),
          decodeStartSeconds: mean(
            several.map(({ request, secondSeconds }) => secondSeconds - request.arrivalSeconds)
          )
        }),
    tokensPerSecond: tokens / makespanSeconds,
    goodputPerSecond: kept / makespanSeconds,
    objectiveShare: kept / times.length,
    promptCacheBytes: mean(times.map(({ promptBytes }) => promptBytes)),
    peakCacheBytes: greatest(outcomes.map(({ peakCacheBytes }) => peakCacheBytes)),
    largestBatch: greatest(outcomes.map(({ largestBatch }) => largestBatch)),
    meanBatch: steps === 0 ? 0 : decoded / steps
  }
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** The smallest value that at least this share of them does not exceed. */
export const percentile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(share * values.length) - 1)]!
