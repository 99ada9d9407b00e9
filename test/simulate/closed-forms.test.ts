// The simulator against closed forms. What one all-reduce costs alone is written down here from the ring's definition:
// 2(n-1) steps, each of which waits for the latency and moves size/n over every link.

import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { evaluateSets, syncProblem } from "../../core/algorithms/data-parallel/plan/cost.ts"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import { profiledModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { elementsOf } from "../../core/machine/tensor.ts"
import type { Profile } from "../../core/profile.ts"
import type { LinkSpec } from "../../core/world.ts"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import { runCase } from "../../testing/check-scheduler.ts"
import { profile } from "../../testing/profile.ts"
import { scenario } from "../../testing/scenario.ts"
import { accumulations } from "../training/rule-instances.ts"
import { close, computeSecondsOf, flatWorld, plan, run, unlimited } from "./simulated.ts"

const bytesOfLayers = ({ layers, parameters }: Profile): ReadonlyArray<number> =>
  layers.map((_, index) =>
    parameters.reduce((sum, { layer, shape }) => sum + (layer === index ? 4 * elementsOf(shape) : 0), 0)
  )

/** Each step sends a window at the link's rate, and each next one a round trip after it began. */
const allReduceSeconds = (
  bytes: number,
  ranks: number,
  { bytesPerSecond, latencySeconds, windowBytes = Infinity }: LinkSpec
): number => {
  const message = bytes / ranks
  const before = bytes > 0 ? Math.ceil(message / windowBytes) - 1 : 0
  const held = before > 0 ? before * Math.max(0, 2 * latencySeconds - windowBytes / bytesPerSecond) : 0
  return 2 * (ranks - 1) * (latencySeconds + message / bytesPerSecond + held)
}

const links = fc.record({
  bytesPerSecond: fc.constantFrom(1e7, 1e8, 1e9, 1e10),
  latencySeconds: fc.constantFrom(0, 1e-4, 1e-2),
  windowBytes: fc.constantFrom(undefined, undefined, 1e6, 1e4)
})
const networks = fc.constantFrom("fluid" as const, "alpha-beta" as const)

describe("partial local SGD", () => {
  it("exposes what the planners' objective says, for any sets, order and deadline", () => {
    const seen = { hidden: 0, exposed: 0, nextUse: 0, stepFirst: 0, partly: 0, repeated: 0 }
    const property = fc.property(
      profile({ maxLayers: 6 }),
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.array(fc.nat({ max: 3 }), { maxLength: 2 }), { minLength: 6, maxLength: 6 }),
      fc.constantFrom("end-of-backward" as const, "next-use" as const),
      fc.constantFrom("average-then-step" as const, "step-then-average" as const),
      fc.integer({ min: 2, max: 5 }),
      links,
      networks,
      (model, period, where, deadline, order, ranks, link, network) => {
        // Each layer at up to two iterations of the period: none, one, or one and again (bubble filling).
        const sets = Array.from({ length: period }, (_, h) =>
          model.layers.flatMap((_, l) => (where[l]!.some((at) => at % period === h) ? [l] : []))
        )
        const bytes = bytesOfLayers(model)
        const problem = syncProblem(
          model.layers.map(({ forward, backward, optimizer }, l) => ({
            forwardSeconds: forward.spanSeconds,
            backwardSeconds: backward.spanSeconds,
            updateSeconds: optimizer.spanSeconds,
            communicationSeconds: bytes[l] === 0 ? 0 : allReduceSeconds(bytes[l]!, ranks, link)
          })),
          { period, deadline, order }
        )
        const expected = evaluateSets(problem, sets).totalSeconds
        const { ranks: simulated } = run({
          world: flatWorld(ranks, link),
          program: partialLocalSgd(
            profiledModel(model),
            { sets, order, deadline, overlap: true },
            4 * period
          ),
          costs: makeCostModel({ profile: model }),
          network
        })
        const ends = simulated[0]!.stepEndSeconds
        const steady = ends[3 * period - 1]! - ends[2 * period - 1]!
        const compute = period * computeSecondsOf(model)
        expect(Math.abs(steady - compute - expected)).toBeLessThanOrEqual(1e-9 * (1 + compute + expected))
        if (expected > 0) seen.exposed++
        else if (sets.some((set) => set.length > 0)) seen.hidden++
        const channel = sets.flat().reduce((sum, l) => sum + problem.communicationSeconds[l]!, 0)
        if (expected > 0 && expected < channel * 0.99) seen.partly++
        if (deadline === "next-use") seen.nextUse++
        if (order === "step-then-average") seen.stepFirst++
        if (sets.flat().length > new Set(sets.flat()).size) seen.repeated++
      }
    )
    fc.assert(property, { numRuns: 300 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(20)
  })
})

describe("synchronous algorithms", () => {
  it("accumulate: passes n times, then one all-reduce of everything or one after each", () => {
    const seen = { last: 0, each: 0 }
    const property = fc.property(
      profile(),
      fc.integer({ min: 2, max: 5 }),
      links,
      accumulations,
      (model, ranks, link, accumulation) => {
        const world = flatWorld(ranks, link)
        const { planned, costs } = plan({ name: "s-sgd" }, model, world)
        const { ranks: simulated, links: carried } = run({
          world,
          program: planned.program(profiledModel(model, { accumulation }), 4),
          // What keeps the mean is no op of the profile.
          costs: { ...costs, seconds: (op) => (op.label.startsWith("accumulate") ? 0 : costs.seconds(op)) }
        })
        const { microBatches = 1, synchronize = "last" } = accumulation ?? {}
        const travels = synchronize === "each" ? microBatches : 1
        const bytes = bytesOfLayers(model).reduce((sum, size) => sum + size, 0)
        const communication = bytes === 0 ? 0 : travels * allReduceSeconds(bytes, ranks, link)
        const passes = model.layers.reduce(
          (sum, { forward, backward }) => sum + forward.spanSeconds + backward.spanSeconds,
          0
        )
        const compute = computeSecondsOf(model) + (microBatches - 1) * passes
        const ends = simulated[0]!.stepEndSeconds
        expect(close(ends[3]! - ends[2]!, compute + communication)).toBe(true)
        const sent = carried.reduce((sum, one) => sum + one.bytes, 0)
        // Both directions of every rank's port, in a ring, in four steps.
        expect(sent).toBeCloseTo(4 * travels * 2 * ranks * ((2 * (ranks - 1) * bytes) / ranks), 2)
        if (accumulation !== undefined) seen[accumulation.synchronize]++
      }
    )
    fc.assert(property)
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThan(10)
  })

  it("S-SGD: compute, then one all-reduce of everything", () => {
    const property = fc.property(
      profile(),
      fc.integer({ min: 1, max: 5 }),
      links,
      networks,
      (model, ranks, link, network) => {
        const world = flatWorld(ranks, link)
        const { planned, costs } = plan({ name: "s-sgd" }, model, world)
        const { ranks: simulated } = run({
          world,
          program: planned.program(profiledModel(model), 4),
          costs,
          network
        })
        const bytes = bytesOfLayers(model).reduce((sum, size) => sum + size, 0)
        const communication = bytes === 0 || ranks === 1 ? 0 : allReduceSeconds(bytes, ranks, link)
        const ends = simulated[0]!.stepEndSeconds
        expect(close(ends[3]! - ends[2]!, computeSecondsOf(model) + communication)).toBe(true)
      }
    )
    fc.assert(property)
  })

  it("Local SGD: H steps of compute, then one all-reduce of all layers", () => {
    const property = fc.property(
      profile(),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 5 }),
      links,
      (model, period, ranks, link) => {
        const world = flatWorld(ranks, link)
        const { planned, costs } = plan({ name: "local-sgd", period }, model, world)
        const { ranks: simulated } = run({
          world,
          program: planned.program(profiledModel(model), 2 * period),
          costs
        })
        const bytes = bytesOfLayers(model).reduce((sum, size) => sum + size, 0)
        const communication = bytes === 0 || ranks === 1 ? 0 : allReduceSeconds(bytes, ranks, link)
        const ends = simulated[0]!.stepEndSeconds
        const steady = ends[2 * period - 1]! - ends[period - 1]!
        expect(close(steady, period * computeSecondsOf(model) + communication)).toBe(true)
      }
    )
    fc.assert(property)
  })

  it("DDP: at least compute and communication, no slower on faster links, compute alone on unlimited ones", () => {
    const seen = { exposed: 0, hidden: 0, bound: 0 }
    const bandwidths = [1e7, 1e8, 1e9, 1e10, 1e11, Infinity]
    const property = fc.property(
      profile(),
      fc.integer({ min: 2, max: 5 }),
      fc.constantFrom(1000, 100_000, 10_000_000),
      fc.constantFrom("end-of-backward" as const, "next-use" as const),
      (model, ranks, bucketBytes, deadline) => {
        const input = { name: "ddp", bucketBytes, firstBucketBytes: bucketBytes / 4, deadline } as const
        const compute = computeSecondsOf(model)
        let slower = Infinity
        for (const bytesPerSecond of bandwidths) {
          const link = { ...unlimited, bytesPerSecond }
          const world = flatWorld(ranks, link)
          const { planned, costs } = plan(input, model, world)
          const simulated = run({ world, program: planned.program(profiledModel(model), 6), costs })
          const ends = simulated.ranks[0]!.stepEndSeconds
          const step = (ends[5]! - ends[3]!) / 2
          const bytes = bytesOfLayers(model).reduce((sum, size) => sum + size, 0)
          const communication = allReduceSeconds(bytes, ranks, link)
          expect(step).toBeGreaterThanOrEqual(Math.max(compute, communication) * (1 - 1e-9))
          expect(step).toBeLessThanOrEqual(slower * (1 + 1e-9) + 1e-12)
          expect(step).toBeLessThanOrEqual((compute + communication) * (1 + 1e-9) + 1e-12)
          if (bytesPerSecond === Infinity) expect(close(step, compute)).toBe(true)
          if (step > compute * (1 + 1e-9)) seen.exposed++
          else if (communication > 0) seen.hidden++
          if (step > compute * 1.001 && step < (compute + communication) * 0.999) seen.bound++
          slower = step
        }
      }
    )
    fc.assert(property, { numRuns: 40 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(8)
  })
})

describe("network models", () => {
  it("agree wherever one collective is in flight at a time, as in every data-parallel program", () => {
    let communicating = 0
    const property = fc.property(scenario({ networks: ["fluid"] }), ({ scenario: input, profile: model }) => {
      const fluid = runCase({ scenario: input, profile: model }).result
      const alphaBeta = runCase({ scenario: { ...input, network: "alpha-beta" }, profile: model }).result
      expect(close(alphaBeta.makespanSeconds, fluid.makespanSeconds)).toBe(true)
      expect(close(alphaBeta.stepSeconds, fluid.stepSeconds)).toBe(true)
      if (fluid.exposedCommunicationSeconds > 0) communicating++
    })
    fc.assert(property, { numRuns: 100 })
    expect(communicating).toBeGreaterThanOrEqual(20)
  })
})
