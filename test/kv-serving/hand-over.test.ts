// Handing caches over: what compression saves on a link, and the bandwidth at which it saves nothing more.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  breakEvenBandwidth,
  fastestBytesPerSecond,
  handoffSeconds,
  type Handoff
} from "../../core/algorithms/kv-serving/handoff.ts"
import type { CacheSettings } from "../../core/algorithms/kv-serving/methods.ts"
import { planChoices } from "../../core/algorithms/kv-serving/choices.ts"
import { roomsOf } from "../../core/algorithms/kv-serving/choice.ts"
import { cacheBytes } from "../../core/algorithms/kv-serving/model.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import type { LinkSpec } from "../../core/world.ts"
import { simulator } from "../../sim/run.ts"
import { breakEvenOf, handoffOf } from "../../scenarios/families/kv-serving/hand-over.ts"
import { keptSource } from "../../scenarios/families/kv-serving/kept-source.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { flatWorld } from "../simulate/simulated.ts"
import { simulated } from "./served.ts"
import { tinyModel } from "./tiny-llama.ts"

/** Choosing costs time by its work, and so does prefill; every launch takes the host so long. */
const costs = (chooseSeconds: number, launchSeconds = 0): CostModel => ({
  seconds: ({ kernel, reads, writes, attributes }) => {
    if (/^kv\.(window|pool|chunk|shot|top|sink)/u.test(kernel.name)) return chooseSeconds
    if (kernel.name === "kv.place") return 1e-6
    return kernel.kind === "compute" ? 1e-9 * kernel.work(reads, writes, attributes).flops + 1e-6 : 0
  },
  estimates: [],
  ...(launchSeconds === 0
    ? {}
    : {
        host: {
          seconds: () => launchSeconds,
          readSeconds: 0,
          replaySeconds: 0,
          launchesLayers: false,
          readsEachStep: false,
          waitsFor: () => false
        }
      })
})

const planOf = (settings: CacheSettings, promptTokens: number) => ({
  model: tinyModel({ layers: 3 }),
  settings,
  requests: [{ id: 0, arrivalSeconds: 0, promptTokens, outputTokens: 2 }],
  maxBatch: 1
})

/** When the decoding rank has the token, which comes last, in a simulation with that link. */
const arrivalOf = (
  settings: CacheSettings,
  promptTokens: number,
  chooseSeconds: number,
  link: LinkSpec,
  launchSeconds = 0
): number => {
  const plan = planOf(settings, promptTokens)
  const { timeline } = simulated(plan, "node", {
    world: flatWorld(2, link),
    costs: costs(chooseSeconds, launchSeconds),
    source: keptSource(plan, 1),
    record: true
  })
  const { rank, label, labels, endSeconds } = timeline!
  const row = [...rank.keys()].findLast((row) => rank[row] === 1 && labels[label[row]!] === "token")
  return endSeconds[row!]!
}

describe("a hand-over", () => {
  it("takes in a simulation what the closed form says", () => {
    fc.assert(
      fc.property(
        cacheSettings(),
        fc.integer({ min: 2, max: 60 }),
        fc.constantFrom(1e-7, 1e-5),
        fc.constantFrom(1e6, 1e8, 1e10),
        fc.constantFrom(0, 1e-5),
        fc.constantFrom(undefined, 500, 4096),
        // A host that is slower than the device: then launches decide when a message leaves, and when it is put in its place.
        fc.constantFrom(0, 2e-6, 2e-5),
        (
          settings,
          promptTokens,
          chooseSeconds,
          bytesPerSecond,
          latencySeconds,
          windowBytes,
          launchSeconds
        ) => {
          const link = { bytesPerSecond, latencySeconds, windowBytes }
          const plan = planOf(settings, promptTokens)
          const handoff = Effect.runSync(handoffOf(plan, costs(chooseSeconds, launchSeconds), 1, simulator))
          const expected = arrivalOf(settings, promptTokens, chooseSeconds, link, launchSeconds)
          expect(handoffSeconds(handoff, link)).toBeCloseTo(expected, 10)
        }
      ),
      { numRuns: 80 }
    )
  })

  it("sends exactly what stays: the closed form's bytes, lists of what was kept, and one token", () => {
    fc.assert(
      fc.property(cacheSettings(), fc.integer({ min: 2, max: 60 }), (settings, promptTokens) => {
        const plan = planOf(settings, promptTokens)
        const { links } = simulated(plan, "node", { source: keptSource(plan, 1) })
        const choices = planChoices(settings, plan.model, promptTokens)
        const lists = choices.reduce(
          (sum, choice) => sum + (choice.kind === "choose" && !choice.exact ? 4 * choice.room : 0),
          0
        )
        const sent = links.find(({ name }) => name === "inter out node 0")!.bytes
        expect(sent).toBe(cacheBytes(plan.model, roomsOf(choices, promptTokens)) + lists + 4)
      }),
      { numRuns: 50 }
    )
  })

  it("is sooner with less below the break-even bandwidth, and not above", () => {
    const seen = { between: 0, always: 0, never: 0 }
    fc.assert(
      fc.property(
        cacheSettings({ methods: ["streaming-llm", "h2o", "snapkv", "chunkkv"] }),
        fc.integer({ min: 20, max: 60 }),
        fc.constantFrom(1e-7, 1e-5, 1e-4),
        fc.constantFrom(0, 1e-5),
        fc.constantFrom(undefined, 500, 4096),
        (settings, promptTokens, chooseSeconds, latencySeconds, windowBytes) => {
          const other = { latencySeconds, windowBytes }
          const breakEven = Effect.runSync(
            breakEvenOf(planOf(settings, promptTokens), () => costs(chooseSeconds), other, 1, simulator)
          )
          const sooner = (bytesPerSecond: number): boolean => {
            const link = { ...other, bytesPerSecond }
            return (
              arrivalOf(settings, promptTokens, chooseSeconds, link) <
              arrivalOf({ name: "full" }, promptTokens, chooseSeconds, link)
            )
          }
          if (breakEven === 0) seen.never++
          else if (breakEven === fastestBytesPerSecond) seen.always++
          else {
            seen.between++
            expect(sooner(breakEven * 0.999)).toBe(true)
            expect(sooner(breakEven * 1.001)).toBe(false)
          }
        }
      ),
      { numRuns: 30 }
    )
    expect(seen.between).toBeGreaterThan(8)
    expect(seen.never).toBeGreaterThan(0)
  })

  it("of one message pays at any bandwidth, at none, or up to bytes saved over seconds lost", () => {
    const one = (readySeconds: number, sizeBytes: number): Handoff => ({
      messages: [{ readySeconds, sizeBytes, placeSeconds: 0 }]
    })
    const near = { latencySeconds: 0 }
    expect(breakEvenBandwidth(one(1, 1e9), one(1.25, 5e8), near)).toBeCloseTo(2e9, -2)
    expect(breakEvenBandwidth(one(1, 1e9), one(0.5, 5e8), near)).toBe(fastestBytesPerSecond)
    expect(breakEvenBandwidth(one(1, 1e9), one(1, 1e9), near)).toBe(0)
  })
})
