// Laws of serving requests, whatever the machine and wherever caches go: everyone is served once, in turn, in time and within
// the memory that was set aside.
import { greatest } from "../extremes.ts"
import { CachePlans } from "../algorithms/kv-serving/admission.ts"
import type { ServingRequest } from "../algorithms/kv-serving/sequence.ts"
import type { ServingOutcome, ServingPlan } from "../algorithms/kv-serving/server.ts"
import type { Violation } from "./execution.ts"

type ServingLaw = (plan: ServingPlan, outcomes: ReadonlyArray<ServingOutcome>) => string | undefined

const everyRequestOnce: ServingLaw = ({ requests }, outcomes) => {
  for (const what of ["begun", "finished"] as const) {
    const ids = outcomes.flatMap((outcome) => outcome[what].map(({ request }) => request.id))
    for (const { id } of requests) {
      const times = ids.filter((other) => other === id).length
      if (times !== 1) return `request ${id} was ${what} ${times} times`
    }
    if (ids.length !== requests.length) return `${ids.length} requests were ${what} of ${requests.length}`
  }
  return undefined
}

const tokensAsAsked: ServingLaw = (_plan, outcomes) => {
  for (const { request, tokens } of outcomes.flatMap(({ finished }) => finished)) {
    if (tokens.length !== request.outputTokens)
      return `request ${request.id} got ${tokens.length} tokens of ${request.outputTokens}`
  }
  return undefined
}

/**
 * Arrival, first token, second, last; the last of one token is the first. Only what one rank saw is compared: another rank
 * may see the second token before the one that prefilled has looked at the first.
 */
const timesInOrder: ServingLaw = (_plan, outcomes) => {
  for (const outcome of outcomes) {
    const first = firstTimes([outcome])
    for (const { request, secondSeconds, lastSeconds } of outcome.finished) {
      const { id, arrivalSeconds, outputTokens } = request
      const times = [
        arrivalSeconds,
        ...(first.has(id) ? [first.get(id)!] : []),
        ...(outputTokens > 1 ? [secondSeconds] : []),
        lastSeconds
      ]
      const late = times.findIndex((seconds, index) => index > 0 && !(seconds >= times[index - 1]!))
      if (late >= 0) return `request ${id} has a time before the one it follows: ${times.join(", ")} s`
    }
  }
  return undefined
}

/** Prefills begin in order of arrival, so first tokens come in that order. */
const firstComeFirstServed: ServingLaw = ({ requests }, outcomes) => {
  const first = firstTimes(outcomes)
  let before: ServingRequest | undefined
  for (const request of requests) {
    if (before !== undefined && first.get(request.id)! < first.get(before.id)!)
      return `request ${request.id} had its first token before request ${before.id}, which came earlier`
    before = request
  }
  return undefined
}

const batchBounded: ServingLaw = ({ maxBatch }, outcomes) => {
  const largest = greatest(outcomes.map(({ largestBatch }) => largestBatch))
  if (largest > maxBatch) return `${largest} sequences decoded together; at most ${maxBatch} may`
  const decoded = outcomes.reduce((sum, { decodedTokens }) => sum + decodedTokens, 0)
  const asked = outcomes
    .flatMap(({ finished }) => finished)
    .reduce((sum, { request }) => sum + request.outputTokens - 1, 0)
  return decoded === asked ? undefined : `${decoded} tokens were decoded, ${asked} asked for after the first`
}

/** No layer keeps more rows of a prompt than its choice has room for. */
const rowsWithinPlan: ServingLaw = ({ settings, model }, outcomes) => {
  const plans = new CachePlans(settings, model)
  for (const { request, promptRows } of outcomes.flatMap(({ finished }) => finished)) {
    const room = plans.of(request).promptRows
    const layer = promptRows.findIndex((rows, index) => rows > room[index]!)
    if (layer >= 0)
      return `request ${request.id} keeps ${promptRows[layer]} rows in layer ${layer}, which has room for ${room[layer]}`
  }
  return undefined
}

const firstTimes = (outcomes: ReadonlyArray<ServingOutcome>): ReadonlyMap<number, number> =>
  new Map(
    outcomes.flatMap(({ begun }) =>
      begun.map(({ request, firstSeconds }) => [request.id, firstSeconds] as const)
    )
  )

/** What others presuppose first. */
export const servingLaws = {
  everyRequestOnce,
  tokensAsAsked,
  timesInOrder,
  firstComeFirstServed,
  batchBounded,
  rowsWithinPlan
} satisfies Readonly<Record<string, ServingLaw>>

/** The first law of serving that the ranks' outcomes break; undefined where they break none. */
export const checkServing = (
  plan: ServingPlan,
  outcomes: ReadonlyArray<ServingOutcome>
): Violation | undefined => {
  for (const [law, breaks] of Object.entries<ServingLaw>(servingLaws)) {
    const message = breaks(plan, outcomes)
    if (message !== undefined) return { law, message }
  }
  return undefined
}
