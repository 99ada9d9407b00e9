// Strategies that load on demand and differ in what they keep: the classic replacement policies, and what hindsight would do.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"
import { arbitrary } from "../algorithm.ts"
import { offloadAlgorithm, type StrategyFacts } from "./algorithm.ts"
import { Arc } from "./cache/arc.ts"
import { Furthest, futureOf } from "./cache/furthest.ts"
import { Lfu } from "./cache/lfu.ts"
import { Lru } from "./cache/lru.ts"
import { S3Fifo } from "./cache/s3-fifo.ts"
import { Sieve } from "./cache/sieve.ts"
import type { ReplacementPolicy } from "./cache/policy.ts"
import { mostPopular, StaticPopular } from "./cache/static-popular.ts"
import { usesOf } from "./demand.ts"

/** A policy that has no settings. */
const plain = <const Name extends string>(
  name: Name,
  title: string,
  policyOf: (slots: number, facts: StrategyFacts) => ReplacementPolicy,
  retains = true
) => {
  const settings = Schema.Struct({ name: Schema.Literal(name) })
  return offloadAlgorithm<typeof settings>({
    title,
    settings,
    retains,
    parts: (_, facts) => ({ policyOf: (slots) => policyOf(slots, facts) }),
    arbitrary: () => arbitrary({}, () => ({ name }))
  })
}

/** Every layer call loads all it needs; nothing is kept. */
export const onDemand = plain("on-demand", "On demand", () => new Lru(), false)
export const leastRecentlyUsed = plain("lru", "LRU", () => new Lru())
export const leastFrequentlyUsed = plain(
  "lfu",
  "LFU",
  (_, { demand: { shape } }) => new Lfu(shape.layers * shape.experts)
)
export const adaptiveReplacement = plain("arc", "ARC", (slots) => new Arc(slots))
export const s3FifoCache = plain("s3-fifo", "S3-FIFO", (slots) => new S3Fifo(slots))
export const sieveCache = plain("sieve", "SIEVE", () => new Sieve())

/** The experts that the whole routing uses most stay: the best fixed set, known with hindsight. */
const staticSettings = Schema.Struct({ name: Schema.Literal("static-popular") })
export const staticPopular = offloadAlgorithm({
  title: "Static popular",
  settings: staticSettings,
  hindsight: true,
  staging: () => true,
  parts: (_, { demand }) => {
    const uses = usesOf(demand)
    const { experts } = demand.shape
    return {
      policyOf: (count, layers) => {
        const own = layers.flatMap((layer) =>
          Array.from({ length: experts }, (_, expert) => layer * experts + expert)
        )
        return new StaticPopular(mostPopular(uses, own, count))
      }
    }
  },
  arbitrary: () => arbitrary({}, () => ({ name: "static-popular" as const }))
})

/** Loads on demand and evicts with knowledge of the future: the fewest loads there can be. */
const Admission = Schema.Literals(["bypass", "forced"])
const optimumSettings = Schema.Struct({
  name: Schema.Literal("optimum"),
  admission: withDefault(Admission, "bypass")
})
export const optimum = offloadAlgorithm({
  title: "Offline optimum",
  settings: optimumSettings,
  hindsight: true,
  staging: ({ admission }) => admission === "bypass",
  parts: ({ admission }, { demand }) => {
    const { shape, calls } = demand
    const part = (layers: ReadonlyArray<number>) =>
      layers.length === shape.layers
        ? demand
        : { shape, calls: calls.filter(({ layer }) => layers.includes(layer)) }
    return { policyOf: (_, layers) => new Furthest(futureOf(part(layers)), admission) }
  },
  arbitrary: () =>
    arbitrary({ admission: Admission.literals }, ({ admission }) => ({ name: "optimum" as const, admission }))
})
