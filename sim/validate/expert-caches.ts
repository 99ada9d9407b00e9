// Expert caches against theory: closed forms under independent references, and the offline optimum as a bound for every
// strategy on routing with memory.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { cheHitRatio, topHitRatio } from "../../core/algorithms/expert-offload/closed-forms.ts"
import { zipf } from "../../core/algorithms/expert-offload/zipf.ts"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { fewestLoads } from "../../core/algorithms/expert-offload/optimum.ts"
import { featureNames } from "../../core/algorithms/expert-offload/predictor/trained.ts"
import { demandOf, generateRouting } from "../../core/algorithms/expert-offload/routing.ts"
import { routingPresets, type RoutingPreset } from "../../core/algorithms/expert-offload/routing-generator.ts"
import { ExpertOffloadSettings, expertOffloadNames } from "../../core/algorithms/expert-offload/algorithms.ts"
import { fixedScope, makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import { Random } from "../../core/random.ts"
import { formatShare } from "../../core/units.ts"
import { alignColumns } from "../../scenarios/table.ts"
import type { Section } from "./section.ts"

const references = 60_000
/** More than three standard deviations of a ratio over that many draws, and Che's own error at these sizes. */
const tolerance = 0.0065

const forms = [
  { experts: 64, exponent: 1, slots: 16 },
  { experts: 64, exponent: 0.2, slots: 16 },
  { experts: 128, exponent: 1.5, slots: 16 }
] as const

const traces = [
  { preset: "llama4", experts: 128, topK: 1, batch: 8, slots: 16 },
  { preset: "deepseek-v2-lite", experts: 64, topK: 6, batch: 1, slots: 16 },
  { preset: "mixtral", experts: 8, topK: 2, batch: 1, slots: 4 }
] as const satisfies ReadonlyArray<{ readonly preset: RoutingPreset } & Readonly<Record<string, unknown>>>

const strategyFor = (name: string, demand: Demand, slots: number) => {
  const settings = Schema.decodeUnknownSync(ExpertOffloadSettings)({ name })
  const scope = fixedScope(settings) ?? "per-layer"
  const own = scope === "shared" ? slots * demand.shape.layers : slots
  return {
    scope,
    slots: own,
    strategy: makeStrategy(settings, {
      demand,
      slots: own,
      scope,
      stagingSlots: 1,
      window: 4,
      weights: { source: "none", features: featureNames, weights: featureNames.map(() => 0) },
      random: new Random(1)
    })
  }
}

/** Independent references are what the generator draws when nothing repeats. */
const independent = (experts: number, exponent: number): Demand => {
  const workload = { batch: 1, promptTokens: 1, prefill: false, decodeTokens: references }
  const statistics = { zipf: exponent, repeat: [0], topics: 1 }
  return demandOf(generateRouting({ layers: 1, experts }, 1, workload, statistics, new Random(7)))
}

export const expertCaches: Section = {
  name: "expert-caches",
  calibrated: true,
  title: "Expert caches against closed forms and the offline optimum",
  open: Effect.succeed({
    points: forms.length + traces.length,
    check: (_, done) =>
      Effect.gen(function* () {
        const ratios: Array<Readonly<Record<"experts" | "exponent" | "slots" | Ratio, number>>> = []
        for (const { experts, exponent, slots } of forms) {
          const demand = independent(experts, exponent)
          const p = zipf(experts, exponent)
          const simulated = (name: string) => {
            const { hits, needs } = countLoads(demand, strategyFor(name, demand, slots).strategy)
            return hits / needs
          }
          ratios.push({
            experts,
            exponent,
            slots,
            lru: simulated("lru"),
            che: cheHitRatio(p, slots),
            popular: simulated("static-popular"),
            top: topHitRatio(p, slots)
          })
          done()
          yield* Effect.yieldNow
        }
        const bounded: Array<{
          readonly routing: RoutingPreset
          readonly algorithm: string
          readonly loads: number
          readonly fewest: number
        }> = []
        for (const { preset, experts, topK, batch, slots } of traces) {
          const workload = { batch, promptTokens: 1, prefill: false, decodeTokens: 64 }
          const shape = { layers: 6, experts }
          const demand = demandOf(
            generateRouting(shape, topK, workload, routingPresets[preset], new Random(3))
          )
          for (const name of expertOffloadNames) {
            const { strategy, slots: own, scope } = strategyFor(name, demand, slots)
            bounded.push({
              routing: preset,
              algorithm: name,
              loads: countLoads(demand, strategy).loads,
              fewest: fewestLoads(demand, own, scope)
            })
          }
          done()
          yield* Effect.yieldNow
        }
        const off = (one: Ratio, other: Ratio) =>
          Math.max(...ratios.map((row) => Math.abs(row[one] - row[other])))
        const beaten = bounded.filter(({ loads, fewest }) => loads < fewest)
        return {
          source: `Che, Tung and Wang (2002) for LRU; the sum of the largest probabilities for a fixed set. ${references} references each, drawn by the routing generator. The optimum is held to exhaustive search in the tests.`,
          claims: [
            {
              claim: "LRU's hit ratio within 0.65 points of Che's approximation",
              holds: off("lru", "che") <= tolerance,
              found: `off by at most ${formatShare(off("lru", "che"))}`
            },
            {
              claim:
                "the hit ratio of the most popular experts within 0.65 points of the sum of their probabilities",
              holds: off("popular", "top") <= tolerance,
              found: `off by at most ${formatShare(off("popular", "top"))}`
            },
            {
              claim: "no algorithm makes fewer loads than the optimum",
              holds: beaten.length === 0,
              found: `${bounded.length - beaten.length} of ${bounded.length} runs`
            }
          ],
          lines: [
            ...alignColumns(
              [
                ["  experts", "Zipf", "slots", "LRU", "Che", "most popular", "sum of p"],
                ...ratios.map((row) => [
                  `  ${row.experts}`,
                  String(row.exponent),
                  String(row.slots),
                  formatShare(row.lru),
                  formatShare(row.che),
                  formatShare(row.popular),
                  formatShare(row.top)
                ])
              ],
              (column) => column > 0
            ),
            "",
            ...alignColumns(
              [
                ["  loads", ...traces.map(({ preset }) => preset)],
                ...expertOffloadNames.map((name) => [
                  `  ${name}`,
                  ...bounded.filter(({ algorithm }) => algorithm === name).map(({ loads }) => String(loads))
                ]),
                [
                  "  fewest, per layer",
                  ...traces.map(
                    ({ preset }) =>
                      `${bounded.find(({ routing, algorithm }) => routing === preset && algorithm === "optimum")!.fewest}`
                  )
                ]
              ],
              (column) => column > 0
            ),
            ""
          ],
          notes: [
            "Six layers, 64 decoding steps from cold slots; every prefetch counts as in time. ExpertFlow and the ring of layers share their slots between layers and are held to the optimum of shared slots, the others to that of slots per layer."
          ],
          values: [
            ...ratios.map((row) => ({ table: "closed forms", ...row })),
            ...bounded.map((row) => ({ table: "bound", ...row }))
          ]
        }
      })
  })
}

type Ratio = "lru" | "che" | "popular" | "top"
