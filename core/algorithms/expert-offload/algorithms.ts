// Every strategy for offloaded experts that a scenario can name: the one list, and what follows from it.
import * as Schema from "effect/Schema"
import { settingsOf } from "../algorithm.ts"
import type { OffloadAlgorithm } from "./algorithm.ts"
import {
  adaptiveReplacement,
  leastFrequentlyUsed,
  leastRecentlyUsed,
  onDemand,
  optimum,
  s3FifoCache,
  sieveCache,
  staticPopular
} from "./caches.ts"
import {
  expertFlow,
  layerRing,
  moeInfinity,
  predictNext,
  previousLayer,
  previousToken
} from "./prefetching.ts"

/** In the order that reports list them. */
export const offloadAlgorithms = [
  onDemand,
  leastRecentlyUsed,
  leastFrequentlyUsed,
  adaptiveReplacement,
  s3FifoCache,
  sieveCache,
  staticPopular,
  previousToken,
  previousLayer,
  predictNext,
  layerRing,
  moeInfinity,
  expertFlow,
  optimum
] as const

/** `algorithm` of a scenario: one schema per algorithm, every field with its default. */
export const ExpertOffloadSettings = Schema.Union(settingsOf(offloadAlgorithms))
export type ExpertOffloadSettings = typeof ExpertOffloadSettings.Type

/** Names as a scenario writes them. */
export const expertOffloadNames: ReadonlyArray<ExpertOffloadSettings["name"]> = offloadAlgorithms.map(
  ({ name }) => name
)

const byName = new Map<string, OffloadAlgorithm>(offloadAlgorithms.map((one) => [one.name, one]))

export const offloadAlgorithmNamed = (name: ExpertOffloadSettings["name"]): OffloadAlgorithm =>
  byName.get(name)!
