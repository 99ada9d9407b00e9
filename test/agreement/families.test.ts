// The simulator and the executor agree on generation with offloaded experts, on serving with compressed caches and on MoE
// training: routes, evictions, kept tokens and generated tokens exactly, all else within rounding.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { moeTraining } from "../../core/algorithms/moe-training/program.ts"
import { gateNames, type MoeModel as TrainedModel } from "../../core/algorithms/moe-training/model.ts"
import { laneCounts } from "../../core/algorithms/moe-training/plan/pipeline.ts"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import type { MoeModel } from "../../core/algorithms/expert-offload/model.ts"
import { expertOffload, type OffloadLog } from "../../core/algorithms/expert-offload/program.ts"
import { fixedScope, makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import type { ExpertOffloadSettings } from "../../core/algorithms/expert-offload/algorithms.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"
import { makeWorld } from "../../core/world.ts"
import { runOnBoth, type Both, type BothOptions } from "../../exec/cli/both-machines.ts"
import { executeThen } from "../../exec/execute.ts"
import { localWorld } from "../../exec/bench.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { offloadSettings } from "../../testing/expert-offload.ts"
import { factsOf } from "../expert-offload/facts.ts"
import { places, programs, valuesOf } from "../kv-serving/served.ts"
import { tinyModel, weightsOf } from "../kv-serving/tiny-llama.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

const both = async <A>(options: BothOptions<A>): Promise<Both<A>> => {
  const result = await Effect.runPromise(runOnBoth(options))
  expect(result.agreement.firstDisagreement).toBeUndefined()
  expect(result.agreement).toMatchObject({ decisions: true, values: true, order: true })
  expect(checkLaws(result.simulatedRun)).toBeUndefined()
  return result
}

const model: MoeModel = {
  layers: 2,
  experts: 5,
  topK: 2,
  width: 8,
  ffnWidth: 6,
  heads: 2,
  kvHeads: 1,
  gated: true,
  normalize: true,
  vocabulary: 13,
  dtype: "float32"
}

/** Large enough that routes differ from token to token. */
const expertValues = (_: number, tensor: Tensor) => {
  if (tensor.dtype !== "float32" || tensor.shape.length < 2 || /^(slot|prefill|decode)/u.test(tensor.name))
    return undefined
  const random = new Random(3).split(tensor.name)
  return Float32Array.from({ length: tensor.elements }, () => random.normal() / 2)
}

const offloadPlan = (
  settings: ExpertOffloadSettings,
  demand: Demand,
  slots: number,
  workload: { batch: number; promptTokens: number; prefill: boolean; decodeTokens: number }
) => ({
  model,
  workload,
  strategy: () =>
    makeStrategy(settings, factsOf(demand, { slots, scope: fixedScope(settings) ?? "per-layer" })),
  writeBack: (["none", "same-stream", "own-stream"] as const)[slots % 3]!,
  seed: 1
})

/** What the real machine computes, bit by bit, and what it chose. */
const generated = (plan: ReturnType<typeof offloadPlan>) =>
  Effect.runPromise(
    executeThen(
      { world: localWorld(1), program: expertOffload(plan), initial: expertValues },
      ({ ranks, valuesOf }) => ({
        log: ranks[0]!.value,
        results: ranks[0]!.value.results.map((tensor) => [...valuesOf(0, tensor)])
      })
    )
  )

describeNative("both machines agree", () => {
  it("on generation with offloaded experts, under every strategy", async () => {
    const seen = new Set<string>()
    let loads = 0
    await fc.assert(
      fc.asyncProperty(
        offloadSettings(),
        fc.integer({ min: 1, max: 4 }),
        fc.record({
          batch: fc.integer({ min: 1, max: 2 }),
          promptTokens: fc.integer({ min: 1, max: 3 }),
          prefill: fc.boolean(),
          decodeTokens: fc.integer({ min: 1, max: 3 })
        }),
        async (settings, slots, workload) => {
          const nothing: Demand = { shape: model, calls: [] }
          const whole = run({
            world: flatWorld(1),
            program: expertOffload(
              offloadPlan({ name: "lru" } as ExpertOffloadSettings, nothing, model.experts, workload)
            ),
            values: expertValues
          })
          const demand: Demand = { shape: model, calls: whole.ranks[0]!.value.calls }
          const { executed } = await both<OffloadLog>({
            world: flatWorld(1),
            program: () => expertOffload(offloadPlan(settings, demand, slots, workload)),
            initial: expertValues
          })
          loads += executed.ranks[0]!.value.loads.reduce((sum, count) => sum + count, 0)
          seen.add(settings.name)
        }
      ),
      { numRuns: 40 }
    )
    expect(seen.size).toBeGreaterThan(8)
    expect(loads).toBeGreaterThan(300)
  })

  it("on serving with every cache method, wherever caches go", async () => {
    const llama = tinyModel()
    const weights = weightsOf(llama, 7)
    const seen = { methods: new Set<string>(), places: new Set<string>(), tokens: 0 }
    await fc.assert(
      fc.asyncProperty(
        cacheSettings(),
        fc.constantFrom(...places),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 3 }),
        fc.nat(),
        async (settings, place, count, maxBatch, seed) => {
          const random = new Random(seed)
          const requests = Array.from({ length: count }, (_, id) => ({
            id,
            arrivalSeconds: id * 1e-3,
            promptTokens: 4 + random.below(20),
            outputTokens: 1 + random.below(4)
          }))
          const prompts = requests.map(({ promptTokens }) =>
            Array.from({ length: promptTokens }, () => random.below(llama.vocabulary))
          )
          const { executed } = await both({
            world: flatWorld(place === "node" ? 2 : 1),
            program: () => programs[place]({ model: llama, settings, requests, maxBatch }),
            initial: valuesOf(weights, prompts)
          })
          for (const { value } of executed.ranks)
            for (const { tokens } of value.finished) seen.tokens += tokens.length
          seen.methods.add(settings.name)
          seen.places.add(place)
        }
      ),
      { numRuns: 40 }
    )
    expect(seen.tokens).toBeGreaterThan(100)
    expect(seen.methods.size).toBeGreaterThan(5)
    expect(seen.places.size).toBe(3)
  })

  it("on MoE training with every gate", async () => {
    const seen = new Set<string>()
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          nodes: fc.integer({ min: 1, max: 2 }),
          perNode: fc.integer({ min: 1, max: 2 }),
          layers: fc.integer({ min: 1, max: 2 }),
          gate: fc.constantFrom(...gateNames),
          ffn: fc.constantFrom("gpt" as const, "mixtral" as const),
          factor: fc.constantFrom(1, 2, "dropless" as const),
          lanes: fc.constantFrom(...laneCounts),
          degree: fc.constantFrom(1, 2),
          seed: fc.nat({ max: 1000 })
        }),
        async ({ nodes, perNode, layers, gate, ffn, factor, lanes, degree, seed }) => {
          const tokenChoice = gate !== "expert-choice" && gate !== "soft-moe"
          const trained: TrainedModel = {
            layers,
            width: 4,
            hidden: 6,
            kvHeads: 2,
            heads: 2,
            sequence: 4,
            batch: 2,
            experts: 2 * nodes,
            topK: 2,
            capacityFactor: tokenChoice ? factor : 0.25,
            ffn,
            gate,
            gateWidth: 3,
            dtype: "float32",
            learningRate: 0.1,
            seed
          }
          const degrees = Array.from({ length: layers }, () => (tokenChoice ? degree : 1))
          const zeros = degrees.map(() => 0)
          await both({
            world: makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
              intra: { bytesPerSecond: Infinity, latencySeconds: 0 },
              inter: { bytesPerSecond: Infinity, latencySeconds: 0 },
              wan: undefined
            }),
            program: () =>
              moeTraining({
                model: trained,
                plan: {
                  lanes,
                  forwardDegrees: degrees,
                  backwardDegrees: degrees,
                  gradients: {
                    moe: zeros,
                    dense: zeros,
                    rest: (layers * 4 * trained.width ** 2) / perNode,
                    messageElements: undefined
                  }
                },
                steps: 2
              })
          })
          seen.add(gate)
        }
      ),
      { numRuns: 30 }
    )
    expect(seen.size).toBe(gateNames.length)
  })
})

describeNative("a memory too small for all experts", () => {
  it("completes, with output that is the uncapped run's to the bit", async () => {
    const workload = { batch: 2, promptTokens: 3, prefill: true, decodeTokens: 6 }
    const nothing: Demand = { shape: model, calls: [] }
    const plan = (slots: number) =>
      offloadPlan({ name: "lru" } as ExpertOffloadSettings, nothing, slots, workload)
    const whole = await generated(plan(model.experts))
    for (const slots of [1, 2, 3]) {
      const capped = await generated(plan(slots))
      expect(capped.results).toEqual(whole.results)
      expect(capped.log.calls).toEqual(whole.log.calls)
      const count = (loads: ReadonlyArray<number>) => loads.reduce((sum, n) => sum + n, 0)
      expect(count(capped.log.loads)).toBeGreaterThan(count(whole.log.loads))
    }
  })
})
