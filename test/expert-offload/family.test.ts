// Scenarios of offloaded experts from file to figures: what adds up, what repeats, what is refused.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import { demandOf, generateRouting, tokensOf } from "../../core/algorithms/expert-offload/routing.ts"
import { routingPresets } from "../../core/algorithms/expert-offload/routing-generator.ts"
import type { ExpertOffloadScenario } from "../../scenarios/families/expert-offload/scenario.ts"
import { expertOffloadNames } from "../../core/algorithms/expert-offload/algorithms.ts"
import { metrics } from "../../scenarios/families/expert-offload/metrics.ts"
import { ignored } from "../../scenarios/families/expert-offload/ignored.ts"
import { expertOffload } from "../../scenarios/families/expert-offload/family.ts"
import type { OffloadFigures } from "../../scenarios/families/expert-offload/simulated.ts"
import type { RunResult } from "../../scenarios/result.ts"
import { runFamily } from "../../sim/run.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { Random } from "../../core/random.ts"
import { routingRows } from "../../traces/routing/import.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { scenarioFile } from "../scenario/files.ts"
import { strategyOf } from "./facts.ts"

const folder = mkdtempSync(join(tmpdir(), "offload-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const small = `
task: expert-offload
name: small
model: { like: mixtral-small, vocabulary: 1000 }
routing: { preset: mixtral }
workload: { batch: 2, promptTokens: 4, decodeTokens: 10, warmupSteps: 2 }
cache: { slotsPerLayer: 4 }
algorithm: lru
`

const loader = new Loader()

const attempt = (...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(small)
  return Effect.runPromise(
    Effect.result(
      Effect.gen(function* () {
        const scenario = yield* loadScenario(file, sets)
        if (scenario.task !== "expert-offload") throw new Error(scenario.task)
        const { result } = yield* runFamily(expertOffload, scenario, file, { loader })
        return { scenario, result }
      })
    )
  )
}

const ran = async (
  ...sets: ReadonlyArray<string>
): Promise<{ readonly scenario: ExpertOffloadScenario; readonly result: RunResult & OffloadFigures }> => {
  const result = await attempt(...sets)
  if (Result.isFailure(result)) throw new Error(result.failure.message)
  return result.success
}

const run = async (...sets: ReadonlyArray<string>): Promise<RunResult & OffloadFigures> =>
  (await ran(...sets)).result

const refusal = async (...sets: ReadonlyArray<string>): Promise<string> => {
  const result = await attempt(...sets)
  if (Result.isSuccess(result)) throw new Error("the scenario ran")
  return result.failure.message
}

describe("a run", () => {
  it.each(expertOffloadNames)("%s: shares add up, loads respect the bound, and it repeats", async (name) => {
    const result = await run(`algorithm=${name}`)
    expect(result.readyShare + result.lateShare + result.missShare).toBeCloseTo(1, 12)
    expect(result.loads).toBeGreaterThanOrEqual(result.fewestLoads)
    expect(result.fewestForcedLoads).toBeGreaterThanOrEqual(result.fewestLoads)
    expect(result.uselessPrefetches).toBeLessThanOrEqual(result.prefetches)
    expect(result.stallSeconds).toBeLessThan(result.decodeStepSeconds)
    expect(result.hostLinkUtilisation).toBeLessThanOrEqual(1)
    expect(result.tokensPerSecond * result.decodeStepSeconds).toBeCloseTo(2, 9)
    for (const { name: metric } of metrics) expect(metricOf(result, metric), metric).not.toBeNaN()
    expect((await run(`algorithm=${name}`)).digest).toBe(result.digest)
  })

  it("with room for all experts loads nothing once warm, and stalls no more", async () => {
    const result = await run("cache.slotsPerLayer=8", "workload.promptTokens=64")
    expect(result.loadsPerStep).toBe(0)
    expect(result.stallSeconds).toBe(0)
    expect(result.readyShare).toBe(1)
    expect(result.loads).toBe(4 * 8)
  })

  it("is bound by a slow link: a step takes what its loads take on it", async () => {
    // Each copy 1 ms beside its latency of none: nothing else comes near.
    const { decodeStepSeconds, loadsPerStep, hostLinkUtilisation, details } = await run(
      "hostLink={bandwidth: 22.020096GB/s, latency: 0s}",
      "algorithm=on-demand"
    )
    expect(details).toMatchObject({ expertBytes: 3 * 3584 * 1024 * 2 })
    expect(decodeStepSeconds).toBeGreaterThan(loadsPerStep * 1e-3)
    expect(decodeStepSeconds).toBeLessThan(loadsPerStep * 1e-3 * 1.35)
    expect(hostLinkUtilisation).toBeGreaterThan(0.75)
  })

  it("a perfect predictor hides copies that a fast link makes in time", async () => {
    const fast = "hostLink={bandwidth: 300GB/s, latency: 0s}"
    const lru = await run(fast)
    const ahead = await run(fast, "algorithm={name: predict-next, window: 16}")
    expect(lru.readyShare).toBeLessThan(0.9)
    expect(ahead.readyShare).toBe(1)
    expect(ahead.stallSeconds).toBe(0)
    expect(ahead.decodeStepSeconds).toBeLessThan(lru.decodeStepSeconds)
  })

  it("bytes of room are slots of all layers, fewer where each has its own", async () => {
    const bytes = 10 * 3 * 3584 * 1024 * 2 + 5
    expect((await run(`cache={bytes: ${bytes}}`)).details).toMatchObject({ slots: 8, scope: "per-layer" })
    expect((await run(`cache={bytes: ${bytes}, scope: shared}`)).details).toMatchObject({
      slots: 10,
      scope: "shared"
    })
    const warnings = async (...sets: ReadonlyArray<string>) => (await run(...sets)).warnings
    expect(await warnings(`cache={bytes: ${bytes}}`)).toEqual([
      "cache.bytes: 44.0 MB of 220 MB hold no expert: 8 of 22.0 MB fit, 2 of each of 4 layers"
    ])
    expect(await warnings(`cache={bytes: ${bytes - 5}, scope: shared}`)).toEqual([])
  })

  it("bytes of one expert are one slot that all layers share, of however many layers", async () => {
    // 1 / 49 * 49 is less than 1.
    const short = ["model.layers=49", "workload={batch: 1, prefill: false, decodeTokens: 2, warmupSteps: 1}"]
    const one = `bytes: ${3 * 3584 * 1024 * 2}`
    expect((await run(...short, `cache={${one}, scope: shared}`)).details).toMatchObject({ slots: 1 })
    expect(await refusal(`cache={bytes: 1MB, scope: shared}`)).toMatch(
      /cache.bytes: 1000000 .*at least the 22020096 B of an expert/u
    )
  })

  it("the token scheduler lets two batches need fewer experts", async () => {
    const two = ["workload={batch: 8, prefill: false, batches: 2, decodeTokens: 40}", "model.experts=64"]
    const apart = await run("routing={statistics: {zipf: 1.5, topics: 2}}", ...two)
    const together = await run("routing={statistics: {zipf: 1.5, topics: 2}}", ...two, "tokenScheduler=true")
    expect(together.needsPerStep).toBeLessThan(apart.needsPerStep)
    // Both have caches: not of all 40 steps, but of the 20 that are its turn.
    const one = await run("routing={statistics: {zipf: 1.5, topics: 2}}", ...two, "workload.batches=1")
    expect(apart.peakBytes.device).toBeGreaterThan(one.peakBytes.device)
    expect(together.peakBytes).toEqual(apart.peakBytes)
  })
})

describe("a routing file", () => {
  it("runs as the routing it holds, with and without its prefill", async () => {
    const shape = { layers: 4, experts: 8 }
    const workload = { batch: 2, promptTokens: 4, prefill: true, decodeTokens: 10 }
    const random = new Random(0).split("routing")
    const routed = generateRouting(shape, 2, workload, routingPresets.mixtral, random)
    const trace = join(folder, "routing.arrow")
    await Effect.runPromise(writeRouting(trace, routingRows(routed)))
    const sets = [`routing={trace: ${trace}}`, "algorithm=expertflow"]
    expect((await run(...sets)).digest).toBe((await run("algorithm=expertflow")).digest)
    const decoding = await run(...sets, "workload.prefill=false")
    expect(decoding.prefillSeconds).toBe(0)
    expect(decoding.loads).toBeGreaterThan(0)
    expect(await refusal(...sets, "workload.decodeTokens=11")).toMatch(
      /workload: 12 steps of 8 and 2 tokens .*the trace has: 11 steps, of 8, then 10 of 2 tokens/
    )
    expect(await refusal(...sets, "model.layers=3")).toMatch(
      /a trace of the model: 3 layers, top 2 of 8 experts/
    )
  })
})

describe("a routing file of several requests", () => {
  const shape = { layers: 4, experts: 8 }
  const requests = {
    batch: 2,
    promptTokens: 4,
    prefill: true,
    decodeTokens: 4,
    next: [
      { promptTokens: 40, decodeTokens: 3 },
      { promptTokens: 6, decodeTokens: 0 },
      { promptTokens: 5, decodeTokens: 3 }
    ]
  }
  const routed = generateRouting(shape, 2, requests, routingPresets.mixtral, new Random(4))
  const trace = join(folder, "requests.arrow")
  const sets = [`routing={trace: ${trace}}`, "workload={batch: 2, promptTokens: 4, decodeTokens: 10}"]

  it("runs as it is, prefills where the trace has them", async () => {
    await Effect.runPromise(writeRouting(trace, routingRows(routed)))
    expect(tokensOf(routed)).toEqual([8, 2, 2, 2, 2, 80, 2, 2, 2, 12, 10, 2, 2, 2])
    const result = await run(...sets, "workload.warmupSteps=0")
    const counted = countLoads(demandOf(routed), strategyOf({ name: "lru" }, demandOf(routed), { slots: 4 }))
    expect(result.loads).toBe(counted.loads)
    // A decoding step is none of the four prefills, and together they are the run.
    expect(10 * result.decodeStepSeconds + 4 * result.prefillSeconds).toBeCloseTo(result.makespanSeconds, 12)
    expect(result.prefillSeconds).toBeGreaterThan(result.decodeStepSeconds)
    expect(result.needsPerStep).toBe(
      demandOf(routed).calls.reduce(
        (sum, { step, needed }) => sum + (tokensOf(routed)[step] === 2 ? needed.length : 0),
        0
      ) / 10
    )
    // As many decoding steps as asked for, and warm-up counts those alone.
    const some = await run(...sets, "workload.decodeTokens=5", "workload.warmupSteps=4")
    expect(some.details).toMatchObject({ prefills: { all: 2, before: 2, between: 0 } })
    expect([result.steps, result.warmupSteps, some.steps, some.warmupSteps]).toEqual([13, 1, 1, 6])
    expect(result.details).toMatchObject({ prefills: { all: 4, before: 1, between: 3 } })
    expect(some.needsPerStep).toBe(
      demandOf(routed)
        .calls.filter(({ step }) => step === 6)
        .reduce((sum, { needed }) => sum + needed.length, 0)
    )
  })

  it("runs without its prefills, the prompts taken as there", async () => {
    const result = await run(...sets, "workload.prefill=false", "workload.warmupSteps=0")
    expect(result.prefillSeconds).toBe(0)
    expect(10 * result.decodeStepSeconds).toBeCloseTo(result.makespanSeconds, 12)
  })

  it("is refused where it has not so many steps, or steps of another batch", async () => {
    expect(await refusal(...sets, "workload.decodeTokens=11")).toMatch(
      /14 steps, of 8, then 4 of 2, .*one of other than 2 is the prefill of 2 prompts of equal length/
    )
    expect(await refusal(...sets, "workload.batch=4", "workload.promptTokens=2")).toMatch(/other than 4/)
  })
})

describe("what does not go together", () => {
  it("is refused with the field and what would do", async () => {
    expect(await refusal("workload.warmupSteps=10")).toMatch(
      /workload.warmupSteps: 10 .*less than the 10 decoding steps/
    )
    expect(await refusal("cache={slotsPerLayer: 4, bytes: 1GB}")).toMatch(
      /cache: both .*one of slotsPerLayer and bytes/
    )
    expect(await refusal("cache={}")).toMatch(/cache: neither/)
    expect(await refusal("cache.slotsPerLayer=9")).toMatch(/at most the 8 experts/)
    expect(await refusal("cache={bytes: 1MB}")).toMatch(
      /cache.bytes: 1000000 .*22020096 B for each of 4 layers/
    )
    expect(await refusal("model.topK=9")).toMatch(/model.topK: 9/)
    expect(await refusal("model.heads=3")).toMatch(/model.heads: 3 .*divides the width 1024/)
    expect(await refusal("model.kvHeads=3")).toMatch(/model.kvHeads: 3/)
    expect(await refusal("workload.batches=2")).toMatch(/prefill: false/)
    expect(await refusal("tokenScheduler=true")).toMatch(/batches: 2/)
    expect(await refusal("routing={trace: nowhere.arrow}")).toMatch(/routing.trace: nowhere.arrow/)
    expect(
      await refusal("algorithm={name: expertflow, predictor: {name: trained, weights: nowhere.json}}")
    ).toMatch(/algorithm.predictor.weights: nowhere.json/)
    expect(await refusal("memory={device: 100MB}")).toMatch(/device memory/)
  })

  it("is refused with real kernels where experts have no value without a scale", async () => {
    const attempted = async (...sets: ReadonlyArray<string>) => {
      const file = scenarioFile(small)
      const scenario = (await Effect.runPromise(loadScenario(file, sets))) as ExpertOffloadScenario
      return Effect.runPromise(Effect.result(expertOffload.kernels(scenario, file, { loader })))
    }
    for (const dtype of ["float32", "bfloat16", "float8"])
      expect(Result.isSuccess(await attempted(`model.expertDtype=${dtype}`)), dtype).toBe(true)
    // As published, too.
    const published = "model={like: gpt-oss-20b, layers: 1}"
    for (const settings of ["model.expertDtype=int8", "model.expertDtype=float4", published]) {
      const result = await attempted(settings)
      if (Result.isSuccess(result)) throw new Error(settings)
      expect(result.failure.message).toMatch(
        /model.expertDtype: (?:int8|float4|mxfp4) .*float32, bfloat16, float8/u
      )
    }
  })

  it("is said where it has no effect", async () => {
    const warnings = async (...sets: ReadonlyArray<string>) => ignored((await ran(...sets)).scenario)
    expect(await warnings("cache.stagingSlots=2")).toEqual([
      expect.stringMatching(/cache.stagingSlots has no effect/)
    ])
    expect(await warnings("cache.scope=shared", "algorithm={name: expertflow, slots: fixed-quota}")).toEqual([
      expect.stringMatching(/cache.scope has no effect: the slots of expertflow are per-layer/)
    ])
    // The usual scope too, where it is written out.
    expect(await warnings("cache.scope=per-layer", "algorithm=expertflow")).toEqual([
      expect.stringMatching(/cache.scope has no effect: the slots of expertflow are shared/)
    ])
    expect(await warnings("algorithm=expertflow")).toEqual([])
    // Two of eight experts: a quarter repeats whatever is asked for.
    expect(await warnings("routing={statistics: {repeat: 0.2}}")).toEqual([
      "routing.statistics.repeat has no effect: 25.0 % of a token's experts repeat by chance, of 2 out of 8"
    ])
    expect(await warnings("routing={statistics: {repeat: 0.3}}")).toEqual([])
    const room = "cache={bytes: 100GB, scope: shared, writeBack: own-stream}"
    expect(await warnings(room)).toEqual([
      expect.stringMatching(/cache.scope has no effect: every expert has a slot/),
      expect.stringMatching(/cache.writeBack has no effect: every expert has a slot/)
    ])
    expect(await warnings("cache.writeBack=own-stream", "algorithm=on-demand")).toHaveLength(1)
    expect(await warnings("cache.writeBack=own-stream")).toEqual([])
  })
})
