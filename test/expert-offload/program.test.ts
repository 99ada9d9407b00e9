// The program on simulated machines, with values: a device that holds few experts computes what one that holds all does,
// under every strategy; and it obeys the laws of any execution.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { countLoads } from "../../core/algorithms/expert-offload/count-loads.ts"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { expertBytes, type MoeModel } from "../../core/algorithms/expert-offload/model.ts"
import { fewestLoads } from "../../core/algorithms/expert-offload/optimum.ts"
import { expertOffload, type OffloadLog } from "../../core/algorithms/expert-offload/program.ts"
import type { ExpertOffloadSettings } from "../../core/algorithms/expert-offload/algorithms.ts"
import { fixedScope, makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import type { Workload } from "../../core/algorithms/expert-offload/workload.ts"
import { assertLaws } from "../../core/laws/laws.ts"
import { OutOfMemory } from "../../core/machine/machine.ts"
import { kvWidthOf } from "../../core/models/decoder-layer.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { offloadSettings } from "../../testing/expert-offload.ts"
import { execute, failureOf, flatWorld, run } from "../simulate/simulated.ts"
import { factsOf } from "./facts.ts"
import { expertValues, offloadModel } from "./tiny-experts.ts"

const model: MoeModel = { ...offloadModel, layers: 3 }

/** Copies are slow, kernels are not: a missing edge would let a kernel read an expert that is not there yet. */
const costs = {
  seconds: ({ kernel }: { readonly kernel: { readonly name: string } }) =>
    kernel.name === "h2d" ? 1 : kernel.name === "d2h" ? 0.1 : 0.01,
  estimates: []
}

const planOf = (
  settings: ExpertOffloadSettings,
  demand: Demand,
  slots: number,
  workload: Workload,
  of: MoeModel = model
) => ({
  model: of,
  workload,
  strategy: () =>
    makeStrategy(settings, factsOf(demand, { slots, scope: fixedScope(settings) ?? "per-layer" })),
  writeBack: (["none", "same-stream", "own-stream"] as const)[slots % 3]!,
  seed: 1
})

const nothing: Demand = { shape: model, calls: [] }

const valuesOf = (options: Parameters<typeof run<OffloadLog>>[0]) => {
  const simulated = run({ ...options, values: expertValues })
  const { value } = simulated.ranks[0]!
  return { log: value, results: value.results.map((tensor) => [...simulated.values!.of(0, tensor)]) }
}

const workloads = fc.record({
  batch: fc.integer({ min: 1, max: 3 }),
  promptTokens: fc.integer({ min: 1, max: 3 }),
  prefill: fc.boolean(),
  decodeTokens: fc.integer({ min: 1, max: 4 }),
  next: fc.array(
    fc.record({
      promptTokens: fc.integer({ min: 1, max: 4 }),
      decodeTokens: fc.integer({ min: 0, max: 3 })
    }),
    { maxLength: 2 }
  )
})

describe("with values", () => {
  it("computes the same with few slots as with all experts on the device, under every strategy", () => {
    const seen = new Map<string, number>()
    let [late, ready, varied, again] = [0, 0, 0, 0]
    fc.assert(
      fc.property(
        workloads,
        offloadSettings(),
        fc.integer({ min: 1, max: 4 }),
        (workload, settings, slots) => {
          const world = flatWorld(1)
          const all = planOf({ name: "lru" }, nothing, model.experts, workload)
          const whole = valuesOf({ world, program: expertOffload(all), costs })
          const demand: Demand = { shape: model, calls: whole.log.calls }
          const plan = planOf(settings, demand, slots, workload)
          const capped = valuesOf({ world, program: expertOffload(plan), costs })
          expect(capped.results).toEqual(whole.results)
          expect(capped.log.calls).toEqual(whole.log.calls)
          // The machine's loads are the counter's.
          const counted = countLoads(demand, plan.strategy())
          const loads = capped.log.loads.reduce((sum, count) => sum + count, 0)
          expect(loads).toBe(counted.loads)
          expect(capped.log.uselessPrefetches).toBe(counted.uselessPrefetches)
          const scope = fixedScope(settings) ?? "per-layer"
          expect(loads).toBeGreaterThanOrEqual(fewestLoads(demand, slots, scope))
          for (const { found } of capped.log.needs) {
            if (found === "late") late++
            if (found === "ready") ready++
          }
          seen.set(settings.name, 1)
          const routes = new Set(
            demand.calls.map(({ needed }) => needed.map((id) => id % model.experts).join())
          )
          if (routes.size > 3) varied++
          if (workload.prefill && workload.next.length > 0) again++
        }
      ),
      { numRuns: 150 }
    )
    expect(seen.size).toBeGreaterThan(10)
    expect(late).toBeGreaterThan(50)
    expect(ready).toBeGreaterThan(200)
    expect(varied).toBeGreaterThan(50)
    expect(again).toBeGreaterThan(20)
  })

  it("serves later prompts as if they were the first", () => {
    const values = (rank: number, tensor: Tensor) =>
      tensor.name === "prompt"
        ? Int32Array.from({ length: tensor.elements }, (_, i) => (5 * i + 3) % model.vocabulary)
        : expertValues(rank, tensor)
    const generate = (workload: Workload) => {
      const program = expertOffload(planOf({ name: "lru" }, nothing, 2, workload))
      const simulated = run({ world: flatWorld(1), program, costs, values })
      const { value } = simulated.ranks[0]!
      return {
        results: value.results.map((tensor) => [...simulated.values!.of(0, tensor)]),
        calls: value.calls.map(({ needed }) => needed)
      }
    }
    // Caches of five rows in both, of which each prompt and its tokens fill all.
    const before = { batch: 2, promptTokens: 2, prefill: true, decodeTokens: 3 }
    const alone = generate({ ...before, promptTokens: 4, decodeTokens: 1 })
    const after = generate({ ...before, next: [{ promptTokens: 4, decodeTokens: 1 }] })
    expect(after.results).toEqual(alone.results)
    expect(after.calls.slice(-alone.calls.length)).toEqual(alone.calls)
    expect(generate(before).results).not.toEqual(alone.results)
  })

  it("gives each of two batches that take turns what it gets alone, in caches of its own", () => {
    const batch = 2
    // Newest tokens to begin with, other ones of each batch.
    const begin = (turn: number) => Int32Array.from({ length: batch }, (_, i) => (7 * turn + 3 * i + 1) % 11)
    const generate = (workload: Workload, turns: ReadonlyArray<number>) => {
      const program = expertOffload(planOf({ name: "lru" }, nothing, 2, workload))
      const values = (rank: number, tensor: Tensor) => {
        const turn = /^token(?: (\d))?$/u.exec(tensor.name)
        if (turn !== null) return begin(turns[Number(turn[1] ?? 0)]!)
        // What a cache holds of its prompt follows from its name: that of the same sequence, whoever stands before it.
        const name = tensor.name.replace(
          /cache (\d)$/u,
          (_, at: string) => `cache ${Number(at) + turns[0]! * batch}`
        )
        return expertValues(rank, { ...tensor, name })
      }
      const simulated = run({ world: flatWorld(1), program, costs, values })
      const { value, peakBytes } = simulated.ranks[0]!
      const results = value.results.map((tensor) => [...simulated.values!.of(0, tensor)])
      const calls = value.calls.map(({ step, needed }) => [step, ...needed])
      return { results, calls, device: peakBytes.device }
    }
    const workload = { batch, promptTokens: 3, prefill: false, decodeTokens: 4 }
    const together = generate({ ...workload, batches: 2, decodeTokens: 8 }, [0, 1])
    const caches = model.layers * batch
    for (const turn of [0, 1]) {
      const alone = generate(workload, [turn])
      // Its tokens, and its caches, which follow the other's in each layer.
      const own = Array.from({ length: caches }, (_, i) => {
        const [layer, sequence] = [Math.floor(i / batch), i % batch]
        return together.results[2 + layer * 2 * batch + turn * batch + sequence]
      })
      expect([together.results[turn], ...own]).toEqual(alone.results)
      const calls = together.calls.filter(([step]) => step! % 2 === turn)
      expect(calls.map(([, ...needed]) => needed)).toEqual(alone.calls.map(([, ...needed]) => needed))
      // Keys and values of seven tokens, tokens, and where these stand in the caches: positions, rows and what they count.
      const more = caches * 2 * (3 + 4) * kvWidthOf(model) * 4 + batch * 4 + 5 * batch * 4
      expect(together.device - alone.device).toBe(more)
    }
  })

  it("ReLU experts with the router's own probabilities, too", () => {
    const relu = { ...model, gated: false, normalize: false, topK: 1 }
    const workload = { batch: 2, promptTokens: 2, prefill: true, decodeTokens: 5 }
    const generate = (slots: number) =>
      valuesOf({
        world: flatWorld(1),
        program: expertOffload(planOf({ name: "lru" }, nothing, slots, workload, relu)),
        costs
      })
    expect(generate(1).results).toEqual(generate(5).results)
    expect(generate(1).log.loads).not.toEqual(generate(5).log.loads)
  })
})

describe("in bounded memory", () => {
  const workload = { batch: 2, promptTokens: 2, prefill: true, decodeTokens: 6 }
  const program = (slots: number) => expertOffload(planOf({ name: "lru" }, nothing, slots, workload))

  it("runs where all experts would not fit", () => {
    const world = flatWorld(1)
    const peak = (slots: number) =>
      run({ world, program: program(slots), costs, values: expertValues }).ranks[0]!.peakBytes.device
    const capped = peak(2)
    expect(peak(5) - capped).toBe(3 * model.layers * expertBytes(model))
    const capacityBytes = { device: capped }
    const bounded = run({ world, program: program(2), costs, values: expertValues, capacityBytes })
    expect(bounded.ranks[0]!.peakBytes.device).toBe(capped)
    expect(
      failureOf({ world, program: program(5), costs, values: expertValues, capacityBytes })
    ).toBeInstanceOf(OutOfMemory)
  })

  it("obeys the laws of any execution", () => {
    fc.assert(
      fc.property(offloadSettings(), fc.integer({ min: 1, max: 4 }), (settings, slots) => {
        const world = flatWorld(1)
        const whole = valuesOf({ world, program: program(5), costs })
        const demand: Demand = { shape: model, calls: whole.log.calls }
        const { execution } = execute({
          world,
          program: expertOffload(planOf(settings, demand, slots, workload)),
          costs,
          values: expertValues
        })
        assertLaws(execution)
      }),
      { numRuns: 40 }
    )
  })
})

it("builds a copy and an expert's product once for each slot, however many tokens follow", () => {
  const count = (decodeTokens: number) => {
    const workload = { batch: 1, promptTokens: 1, prefill: false, decodeTokens }
    const plan = planOf({ name: "lru" } as ExpertOffloadSettings, nothing, 6, workload)
    const { execution } = execute({
      world: flatWorld(1),
      values: expertValues,
      costs,
      program: expertOffload(plan)
    })
    const ops = (execution.journals ?? [])
      .flatMap(({ entries }) => entries)
      .flatMap((entry) => (entry.kind === "op" ? [entry.op] : []))
      .filter(({ kernel }) => kernel.name === "h2d" || kernel.name === "expert_ffn.forward")
    return { submitted: ops.length, built: new Set(ops).size }
  }
  const [some, more] = [count(20), count(60)]
  expect(more.submitted).toBeGreaterThan(2.5 * some.submitted)
  // Each expert has the slots of its layer, at most: a copy ahead, a copy on demand, and its product.
  expect(more.built).toBeLessThanOrEqual(3 * model.layers * model.experts * 6)
  expect(more.built).toBeLessThan(more.submitted / 2)
})
