// The simulator and the executor agree on generation with offloaded experts, on serving with compressed caches and on MoE
// training: routes, evictions, kept tokens and generated tokens exactly, all else within rounding.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import type { ExpertOffloadSettings } from "../../core/algorithms/expert-offload/algorithms.ts"
import { expertOffload, type OffloadLog } from "../../core/algorithms/expert-offload/program.ts"
import type { ServingOutcome } from "../../core/algorithms/kv-serving/server.ts"
import { gateNames } from "../../core/algorithms/moe-training/model.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import { runOnBoth, type Both, type BothOptions } from "../../exec/cli/both-machines.ts"
import { executeThen } from "../../exec/execute.ts"
import { localWorld } from "../../exec/bench.ts"
import { expertValues, offloadModel } from "../expert-offload/tiny-experts.ts"
import { describeNative } from "../native/addon.ts"
import { drawnExperts, drawnOffloads, drawnServing, noDemand, offloadPlan } from "./generated-families.ts"

const both = async <A>(options: BothOptions<A>): Promise<Both<A>> => {
  const result = await Effect.runPromise(runOnBoth(options))
  expect(result.agreement.firstDisagreement).toBeUndefined()
  expect(result.agreement).toMatchObject({ decisions: true, values: true, order: true })
  expect(checkLaws(result.simulatedRun)).toBeUndefined()
  return result
}

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
      fc.asyncProperty(drawnOffloads(1), async ({ of, options }) => {
        const { executed } = await both(options as BothOptions<OffloadLog>)
        loads += executed.ranks[0]!.value.loads.reduce((sum, count) => sum + count, 0)
        seen.add(of)
      }),
      { numRuns: 40 }
    )
    expect(seen.size).toBeGreaterThan(8)
    expect(loads).toBeGreaterThan(300)
  })

  it("on serving with every cache method, wherever caches go", async () => {
    const seen = { methods: new Set<string>(), places: new Set<string>(), tokens: 0 }
    await fc.assert(
      fc.asyncProperty(drawnServing(), async ({ of, place, options }) => {
        const { executed } = await both(options as BothOptions<ServingOutcome>)
        for (const { value } of executed.ranks)
          for (const { tokens } of value.finished) seen.tokens += tokens.length
        seen.methods.add(of)
        seen.places.add(place)
      }),
      { numRuns: 40 }
    )
    expect(seen.tokens).toBeGreaterThan(100)
    expect(seen.methods.size).toBeGreaterThan(5)
    expect(seen.places.size).toBe(3)
  })

  it("on MoE training with every gate", async () => {
    const seen = new Set<string>()
    const few = fc.integer({ min: 1, max: 2 })
    await fc.assert(
      fc.asyncProperty(drawnExperts(few, few), async ({ of, options }) => {
        await both(options)
        seen.add(of)
      }),
      { numRuns: 30 }
    )
    expect(seen.size).toBe(gateNames.length)
  })
})

describeNative("a memory too small for all experts", () => {
  it("completes, with output that is the uncapped run's to the bit", async () => {
    const workload = { batch: 2, promptTokens: 3, prefill: true, decodeTokens: 6 }
    const plan = (slots: number) =>
      offloadPlan({ name: "lru" } as ExpertOffloadSettings, noDemand, slots, workload)
    const whole = await generated(plan(offloadModel.experts))
    for (const slots of [1, 2, 3]) {
      const capped = await generated(plan(slots))
      expect(capped.results).toEqual(whole.results)
      expect(capped.log.calls).toEqual(whole.log.calls)
      const count = (loads: ReadonlyArray<number>) => loads.reduce((sum, n) => sum + n, 0)
      expect(count(capped.log.loads)).toBeGreaterThan(count(whole.log.loads))
    }
  })
})
