// Generated tokens, with values through every op: equal to a decoder without any cache, whatever is kept and given up, wherever the cache
// waits or goes, and however requests share the batch.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { keptGenerated } from "../../core/algorithms/kv-serving/choices.ts"
import { cacheBytes } from "../../core/algorithms/kv-serving/model.ts"
import { headWidthOf } from "../../core/models/decoder-layer.ts"
import { cacheMethods, type CacheSettings } from "../../core/algorithms/kv-serving/methods.ts"
import { Random } from "../../core/random.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { keptBy } from "./kept-oracle.ts"
import { finishedOf, places, simulated, valuesOf } from "./served.ts"
import { generate, tinyModel, weightsOf, type Keep } from "./tiny-llama.ts"

const model = tinyModel()
const weights = weightsOf(model, 7)

/** The oracle's choice for a whole prompt, followers as their leaders. */
const keepBy = (settings: CacheSettings, layers: number): Keep => {
  const known = new Map<number, ReadonlyArray<ReadonlySet<number>>>()
  return (layer, q, k) => {
    const reuse = settings.name === "chunkkv" ? settings.reuse : 1
    const leader = layer - (layer % reuse)
    if (leader !== layer) return known.get(leader)!
    const shape = { q, k, heads: model.heads, kvHeads: model.kvHeads, headWidth: headWidthOf(model) }
    const kept = keptBy(settings, shape, { layer, layers }).map((list) => new Set(list))
    known.set(layer, kept)
    return kept
  }
}

const requestsOf = (random: Random, count: number) =>
  Array.from({ length: count }, (_, id) => ({
    id,
    arrivalSeconds: 0,
    promptTokens: 4 + random.below(24),
    outputTokens: 1 + random.below(6)
  }))

const promptsOf = (random: Random, requests: ReadonlyArray<{ readonly promptTokens: number }>) =>
  requests.map(({ promptTokens }) =>
    Array.from({ length: promptTokens }, () => random.below(model.vocabulary))
  )

describe("generation", () => {
  it("equals a decoder without a cache that sees what each method keeps", () => {
    const seen = { compared: 0, close: 0, givenUp: 0, cut: new Set<string>(), places: new Set<string>() }
    fc.assert(
      fc.property(
        cacheSettings(),
        fc.constantFrom(...places),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(),
        (settings, place, count, maxBatch, seed) => {
          const random = new Random(seed)
          const requests = requestsOf(random, count)
          const prompts = promptsOf(random, requests)
          const plan = { model, settings, requests, maxBatch }
          const result = simulated(plan, place, { values: valuesOf(weights, prompts) })
          const finished = finishedOf(result)
          expect(finished.map(({ request }) => request)).toEqual(requests)
          for (const [id, { tokens, promptRows }] of finished.entries()) {
            const { outputTokens, promptTokens } = requests[id]!
            const expected = generate(
              model,
              weights,
              prompts[id]!,
              outputTokens,
              keepBy(settings, model.layers),
              (fedBack) => keptGenerated(settings, fedBack)
            )
            // Two tokens as good as each other, or nearly: rounding may choose either.
            if (expected.margin < 1e-4) {
              seen.close++
              continue
            }
            expect(tokens).toEqual(expected.tokens)
            seen.compared++
            seen.places.add(place)
            if (keptGenerated(settings, outputTokens - 1) < outputTokens - 1) seen.givenUp++
            if (promptRows.some((row) => row < promptTokens)) seen.cut.add(settings.name)
          }
        }
      ),
      { numRuns: 70 }
    )
    expect(seen.compared).toBeGreaterThan(100)
    expect(seen.close).toBeLessThan(seen.compared / 10)
    expect(seen.givenUp).toBeGreaterThan(3)
    expect([...seen.places].toSorted()).toEqual([...places].toSorted())
    expect([...seen.cut].toSorted()).toEqual(cacheMethods.filter((name) => name !== "full").toSorted())
  })

  it("with a full budget equals the full cache's, for every method", () => {
    for (const name of cacheMethods) {
      const [settings] = fc.sample(cacheSettings({ methods: [name], decodeEviction: false }), {
        numRuns: 1,
        seed: 1
      })
      const whole = {
        ...settings!,
        ...(name === "full" ? {} : { keep: 1, budget: undefined })
      } as CacheSettings
      const random = new Random(3)
      const requests = requestsOf(random, 3)
      const values = valuesOf(weights, promptsOf(random, requests))
      const tokens = (settings: CacheSettings) =>
        finishedOf(simulated({ model, settings, requests, maxBatch: 2 }, "here", { values })).map(
          ({ tokens }) => tokens
        )
      expect(tokens(whole)).toEqual(tokens({ name: "full" }))
    }
  })

  it("ShotKV's generated tokens take what is left after giving up, in memory and in attention", () => {
    const settings: CacheSettings = { name: "shotkv", keep: 0.5, window: 4, shot: 4, decodeKeep: 0.5 }
    const requests = [{ id: 0, arrivalSeconds: 0, promptTokens: 16, outputTokens: 8 }]
    const values = valuesOf(weights, promptsOf(new Random(1), requests))
    const result = simulated({ model, settings, requests, maxBatch: 1 }, "here", { values, record: true })
    const { finished, peakCacheBytes } = result.ranks[0]!.value
    // 7 tokens are appended; 3 stay, and one more for the moment before one is given up
    expect(keptGenerated(settings, 7)).toBe(3)
    expect(peakCacheBytes).toBe(
      cacheBytes(
        model,
        finished[0]!.promptRows.map((rows) => rows + 4)
      )
    )
    // appended 1..7 keep 1, 1, 1, 2, 2, 3, 3: one is given up at 2, 3, 5 and 7
    const evictions = result.opLogs[0]!.entries.filter(({ kernel }) => kernel === "kv.evict")
    expect(evictions.length).toBe(4 * model.layers)
  })
})
