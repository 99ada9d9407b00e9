// Generation with offloaded experts over a link so slow that nothing else counts, against numbers worked out by hand from a routing that
// the test draws itself: needs, bytes, seconds of a step, what lies in memory. Knows nothing of caches' policies beyond what they load.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { Random } from "../../core/random.ts"
import { expertOffload } from "../../scenarios/families/expert-offload/family.ts"
import type { ExpertOffloadScenario } from "../../scenarios/families/expert-offload/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runFamily } from "../../sim/run.ts"
import { routingRows } from "../../traces/routing/import.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { scenarioFile, temporaryFolder } from "../scenario/files.ts"

const loader = new Loader()

const run = (scenario: object) => {
  const file = scenarioFile(JSON.stringify(scenario))
  return Effect.runPromise(
    Effect.gen(function* () {
      const loaded = (yield* loadScenario(file, [])) as ExpertOffloadScenario
      const { result } = yield* runFamily(expertOffload, loaded, file, { loader })
      const told = yield* expertOffload.schedule(loaded, file, hostOf(loader))
      const { algorithms } = told.json as {
        readonly algorithms: ReadonlyArray<Readonly<Record<string, number>>>
      }
      return { result, counted: algorithms[0]! }
    })
  )
}

const bits = { float32: 32, bfloat16: 16, float8: 8, float4: 4, mxfp4: 4.25 } as const

const drawn = fc.record({
  layers: fc.integer({ min: 1, max: 3 }),
  experts: fc.constantFrom(1, 2, 4, 8),
  topK: fc.integer({ min: 1, max: 4 }),
  gated: fc.boolean(),
  width: fc.constantFrom(64, 96),
  ffnWidth: fc.constantFrom(32, 96),
  kvHeads: fc.constantFrom(1, 2),
  dtype: fc.constantFrom("bfloat16" as const, "float32" as const),
  expertDtype: fc.constantFrom(
    "float32" as const,
    "bfloat16" as const,
    "float8" as const,
    "float4" as const,
    "mxfp4" as const
  ),
  batch: fc.integer({ min: 1, max: 4 }),
  promptTokens: fc.integer({ min: 1, max: 9 }),
  prefill: fc.boolean(),
  decodeTokens: fc.integer({ min: 1, max: 12 }),
  algorithm: fc.constantFrom("on-demand", "lru", "lfu", "arc", "s3-fifo", "sieve"),
  scope: fc.constantFrom("per-layer", "shared"),
  bandwidth: fc.constantFrom(1e4, 1e5),
  latency: fc.constantFrom(0, 0.01),
  seed: fc.nat()
})
type Case = typeof drawn extends fc.Arbitrary<infer T> ? T : never

const cases = drawn.chain((one) =>
  fc.record({
    one: fc.constant({ ...one, topK: Math.min(one.topK, one.experts) }),
    slots: fc.integer({ min: 1, max: one.experts }),
    warmupSteps: fc.integer({ min: 0, max: one.decodeTokens - 1 })
  })
)

/** What each token chooses in each step and layer: distinct experts, those of low numbers oftener. */
const choicesOf = ({ layers, experts, topK, batch, promptTokens, prefill, decodeTokens, seed }: Case) => {
  const random = new Random(seed)
  const chosen = (): ReadonlyArray<number> => {
    const left = Array.from({ length: experts }, (_, expert) => expert)
    return Array.from(
      { length: topK },
      () => left.splice(Math.floor(random.uniform() ** 2 * left.length), 1)[0]!
    )
  }
  const tokens = [
    ...(prefill ? [batch * promptTokens] : []),
    ...Array.from({ length: decodeTokens }, () => batch)
  ]
  return tokens.map((count) =>
    Array.from({ length: layers }, () => Int32Array.from(Array.from({ length: count }, chosen).flat()))
  )
}

describe("offloaded experts by hand", () => {
  it("need what tokens choose, and take as long as the copies of what is loaded", async () => {
    const seen = { kept: 0, "narrow experts": 0, shared: 0 }
    await fc.assert(
      fc.asyncProperty(cases, async ({ one, slots, warmupSteps }) => {
        const { layers, experts, topK, width, ffnWidth, kvHeads, batch, prefill, bandwidth, latency } = one
        const choices = choicesOf(one)
        const trace = join(temporaryFolder(), "routing.arrow")
        await Effect.runPromise(
          writeRouting(trace, routingRows({ shape: { layers, experts }, topK, choices }))
        )
        const [heads, headWidth, vocabulary] = [2 * kvHeads, 32, 500]
        const scenario = {
          task: "expert-offload",
          name: "by hand",
          model: {
            like: one.gated ? "mixtral-small" : "switch-base-32",
            layers,
            experts,
            topK,
            width,
            heads,
            kvHeads,
            headWidth,
            ffnWidth,
            vocabulary,
            dtype: one.dtype,
            expertDtype: one.expertDtype
          },
          routing: { trace },
          workload: {
            batch,
            promptTokens: one.promptTokens,
            prefill,
            decodeTokens: one.decodeTokens,
            warmupSteps
          },
          cache: { slotsPerLayer: slots, scope: one.scope },
          hostLink: { bandwidth: `${bandwidth}B/s`, latency },
          host: "none",
          algorithm: one.algorithm
        }
        const { result, counted } = await run(scenario)
        const needed = choices.map((step) => step.reduce((sum, chosen) => sum + new Set(chosen).size, 0))
        const measured = needed.slice((prefill ? 1 : 0) + warmupSteps)
        expect(result.needsPerStep).toBeCloseTo(
          measured.reduce((sum, own) => sum + own, 0) / measured.length,
          9
        )
        // What a run loads is what is counted without one.
        const all = needed.reduce((sum, own) => sum + own, 0)
        expect([result.loads, counted["needs"]]).toEqual([counted["loads"], all])
        if (one.algorithm === "on-demand") expect(result.loads).toBe(all)
        else if (result.loads < all) seen.kept++
        const expertBytes = ((one.gated ? 3 : 2) * ffnWidth * width * bits[one.expertDtype]) / 8
        expect(result.loadedBytesPerStep).toBeCloseTo(result.loadsPerStep * expertBytes, 6)
        // Beside loads each layer's choices are copied to the host; kernels take less than a hundredth of a second.
        const copies = result.loadsPerStep * (latency + expertBytes / bandwidth)
        const seconds = copies + layers * (latency + (4 * batch * topK) / bandwidth)
        expect(result.decodeStepSeconds).toBeGreaterThan(seconds * (1 - 1e-9))
        expect(result.decodeStepSeconds).toBeLessThan(seconds * (1 + 1e-9) + 0.01)
        expect(Math.abs(result.stallSeconds - copies)).toBeLessThan(0.01)
        expect(result.lateShare).toBe(0)
        // Every slot holds an expert, and every expert lies on the host; what else the device holds has nothing to do with slots.
        const least = await run({ ...scenario, cache: { ...scenario.cache, slotsPerLayer: 1 } })
        expect(result.peakBytes.device - least.result.peakBytes.device).toBe(
          (slots - 1) * layers * expertBytes
        )
        const [query, kv] = [heads * headWidth, kvHeads * headWidth]
        const weights =
          layers * (width * (2 * query + 2 * kv + experts) + 2 * width) + (2 * vocabulary + 1) * width
        const cached = batch * layers * 2 * (one.promptTokens + one.decodeTokens) * kv
        const held = ((weights + cached) * bits[one.dtype]) / 8 + slots * layers * expertBytes
        expect(result.peakBytes.device).toBeGreaterThan(held)
        expect(result.peakBytes.host).toBeGreaterThan(layers * experts * expertBytes)
        if (bits[one.expertDtype] < bits[one.dtype]) seen["narrow experts"]++
        if (one.scope === "shared") seen.shared++
      }),
      { numRuns: 60 }
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(10)
  })
})
