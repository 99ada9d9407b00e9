// The pipelined part: FSMoE's published numbers, its four cases against the lanes and against the engine, and the choice of
// degree and gradient cut against exhaustive search.
import { leastCommonMultiple } from "../../core/whole-numbers.ts"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { submitPipelined, type ChunkOps } from "../../core/algorithms/moe-training/pipelined.ts"
import { fitLine, secondsAt, sizeIn } from "../../core/algorithms/moe-training/plan/cost-line.ts"
import { chooseDegree, usualDegrees } from "../../core/algorithms/moe-training/plan/degree.ts"
import {
  allAtEnd,
  besideDense,
  exactPartition,
  fixedChunks,
  greedyPartition,
  partitionBoundSeconds,
  planOf,
  type GradientProblem
} from "../../core/algorithms/moe-training/plan/gradients.ts"
import {
  caseOf,
  caseSeconds,
  laneCounts,
  laneSeconds,
  modelSeconds,
  slackSeconds,
  type ChunkTimes,
  type LaneUse
} from "../../core/algorithms/moe-training/plan/pipeline.ts"
import { placeExperts } from "../../core/algorithms/moe-training/plan/placement.ts"
import { repack } from "../../core/kernels/moe-order.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import { close, flatWorld, run } from "../simulate/simulated.ts"

/** The longest of the four chains that no schedule on three lanes can be shorter than; equal to the cases where they are exact. */
const longestChainSeconds = (times: ChunkTimes, degree: number, gradient = 0): number =>
  Math.max(...([1, 2, 3, 4] as const).map((which) => caseSeconds(which, times, degree, gradient)))

/** Load of the busiest device over the mean: 1 is perfect. Every replica takes an equal share of its expert. */
const imbalance = (
  loads: ReadonlyArray<number>,
  { expertOf, places }: ReturnType<typeof placeExperts>,
  devices: number
): number => {
  const perDevice = expertOf.length / devices
  const deviceLoads = new Float64Array(devices)
  expertOf.forEach((expert, place) => {
    deviceLoads[Math.floor(place / perDevice)]! += loads[expert]! / places[expert]!.length
  })
  const total = loads.reduce((sum, load) => sum + load, 0)
  return total === 0 ? 1 : (Math.max(...deviceLoads) * devices) / total
}

/**
 * The defaults of FSMoE's tools/optim.py: B 4, L 1024, M 4096, H 14336, F 2.4, 8 ranks a node, three products. Milliseconds
 * as the authors have them.
 */
const golden = (degree: number): ChunkTimes => {
  const [f, tokens, width, hidden, perNode] = [2.4, 4 * 1024, 4096, 14336, 8]
  const gathered = f * tokens * width
  const chunk = (fixed: number, perUnit: number, size: number): number => fixed + (size / degree) * perUnit
  return {
    allToAll: chunk(2.3515350484e-1, 1.8543323833e-6, gathered / perNode),
    allGather: chunk(0.0549, 6.72388e-7, gathered),
    reduceScatter: chunk(0.0688, 6.70433e-7, gathered),
    expert: chunk(5.91943532e-1, 5.6847387697e-11, ((gathered * hidden) / perNode) * 3)
  }
}
const backward = (times: ChunkTimes): ChunkTimes => ({ ...times, expert: 2 * times.expert })

describe("FSMoE's published model", () => {
  it("gives the golden vector: times by degree, cases, best degrees, slack", () => {
    const forward = usualDegrees.map((degree) => modelSeconds(golden(degree), degree))
    expect(forward.map((time) => time.toFixed(4))).toEqual(["86.2269", "64.1200", "59.7008", "57.8623"])
    expect(usualDegrees.map((degree) => caseOf(golden(degree), degree, 0))).toEqual([2, 4, 4, 4])
    const back = usualDegrees.map((degree) => modelSeconds(backward(golden(degree)), degree))
    expect(back.map((time) => time.toFixed(4))).toEqual(["99.1244", "64.1200", "59.7008", "57.8623"])
    for (const costs of [golden, (degree: number) => backward(golden(degree))]) {
      expect(chooseDegree({ costs, lanes: "three", degrees: usualDegrees, by: "model" }).degree).toBe(8)
    }
    expect(slackSeconds(backward(golden(8)), 8).toFixed(4)).toBe("35.4335")
    // 29.66 ms of gradient are hidden whole.
    expect(modelSeconds(backward(golden(8)), 8, 29.66)).toBe(modelSeconds(backward(golden(8)), 8))
  })

  it("hides the whole gradient of its two layers, 8,394,240 elements each, but for the last one's", () => {
    const problem: GradientProblem = {
      layers: [0, 1].map(() => ({
        elements: 8_394_240,
        denseSeconds: 1.3,
        costs: (degree) => backward(golden(degree))
      })),
      allReduceSeconds: (elements) => (elements === 0 ? 0 : 3.4099276392e-1 + elements * 3.4950701465e-6),
      lanes: "three",
      degrees: usualDegrees,
      by: "model"
    }
    for (const plan of [greedyPartition(problem), exactPartition(problem)]) {
      expect(plan.degrees).toEqual([8, 8])
      const sent = plan.moe[1]! + plan.dense[1]!
      expect(sent).toBeCloseTo(8_394_240, 3)
      expect(plan.seconds).toBeCloseTo(2 * (57.8623 + 1.3) + problem.allReduceSeconds(8_394_240), 3)
    }
  })
})

const seconds = fc.double({ min: 0.01, max: 10, noNaN: true })
const times = fc.record({ allToAll: seconds, allGather: seconds, reduceScatter: seconds, expert: seconds })
const evenTimes = times.map((one): ChunkTimes => ({ ...one, reduceScatter: one.allGather }))
const unevenTimes = fc
  .tuple(times, fc.double({ min: 0.4, max: 2.5, noNaN: true }))
  .map(([one, ratio]): ChunkTimes => ({ ...one, reduceScatter: ratio * one.allGather }))
const degrees = fc.integer({ min: 1, max: 8 })
const gradients = fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 60, noNaN: true }))

/** The pipelined part on the simulator: submitted by the code that training runs, ops of given times. */
const pipelineProgram = (degree: number, withGradient: boolean, lanes: LaneUse): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const intra = lanes === "three" ? Lane.intra : Lane.inter
    const spec = (name: string) => ({ name, shape: [], dtype: "float32" as const })
    const chunks: Array<ChunkOps> = []
    for (let i = 0; i < degree; i++) {
      const names = ["a", "b", "c", "d", "e"]
      const made = yield* Effect.forEach(names, (name) => machine.alloc(spec(`${name} ${i}`)))
      const stage = (label: string, lane: Lane, from: number): ReadonlyArray<Op> => [
        launch(label, repack, lane, from < 0 ? [] : [made[from]!], [made[from + 1]!])
      ]
      chunks.push({
        dispatch: stage("allToAll", Lane.inter, -1),
        gather: stage("allGather", intra, 0),
        expert: stage("expert", Lane.compute, 1),
        scatter: stage("reduceScatter", intra, 2),
        combine: stage("allToAll", Lane.inter, 3)
      })
    }
    const gradient = yield* machine.alloc(spec("gradient"))
    submitPipelined(machine, chunks, lanes, {
      afterDispatch: () => {
        if (withGradient) machine.submit(launch("gradient", repack, Lane.inter, [gradient], [gradient]))
      },
      beforeCombine: () => undefined
    })
    yield* machine.drain
  })

const engineSeconds = (one: ChunkTimes, degree: number, gradient: number, lanes: LaneUse): number =>
  run({
    world: flatWorld(1),
    program: pipelineProgram(degree, gradient > 0, lanes),
    costs: {
      seconds: (op) => ({ ...one, gradient })[op.label as keyof ChunkTimes | "gradient"],
      estimates: []
    }
  }).makespanSeconds

describe("the four cases", () => {
  it("equal the engine when a gather takes as long as a scatter; so do the longest chain and the lanes", () => {
    const seen = [0, 0, 0, 0]
    fc.assert(
      fc.property(evenTimes, degrees, gradients, (one, degree, gradient) => {
        const engine = engineSeconds(one, degree, gradient, "three")
        expect(close(modelSeconds(one, degree, gradient), engine)).toBe(true)
        expect(close(longestChainSeconds(one, degree, gradient), engine)).toBe(true)
        expect(close(laneSeconds(one, degree, gradient, "three"), engine)).toBe(true)
        seen[caseOf(one, degree, gradient) - 1]!++
      }),
      // Twenty times as many in a soak: 100,000.
      { numRuns: 5000 }
    )
    for (const count of seen) expect(count).toBeGreaterThan(250)
  })

  it("are off where they differ, by at most what was published; the lanes are the engine's always", () => {
    let differ = 0
    fc.assert(
      fc.property(
        unevenTimes,
        degrees,
        gradients,
        fc.constantFrom(...laneCounts),
        (one, degree, gradient, lanes) => {
          const engine = engineSeconds(one, degree, gradient, lanes)
          expect(close(laneSeconds(one, degree, gradient, lanes), engine)).toBe(true)
          if (lanes !== "three") return
          // Chains are lower bounds; the cases' conditions may pick one that is not the longest.
          expect(longestChainSeconds(one, degree, gradient)).toBeLessThanOrEqual(engine * (1 + 1e-9))
          const ratio = one.reduceScatter / one.allGather
          if (ratio < 0.5 || ratio > 2) return
          const off = Math.abs(longestChainSeconds(one, degree, gradient) / engine - 1)
          if (off > 1e-9 || !close(modelSeconds(one, degree, gradient), engine)) differ++
          expect(off).toBeLessThan(0.12)
          expect(Math.abs(modelSeconds(one, degree, gradient) / engine - 1)).toBeLessThan(0.27)
        }
      ),
      { numRuns: 1000 }
    )
    expect(differ).toBeGreaterThan(5)
  })

  it("leave the slack that a gradient may take for nothing, and no more", () => {
    fc.assert(
      fc.property(evenTimes, degrees, (one, degree) => {
        const slack = slackSeconds(one, degree)
        const without = modelSeconds(one, degree)
        expect(close(modelSeconds(one, degree, slack * (1 - 1e-9)), without)).toBe(true)
        expect(modelSeconds(one, degree, slack + 0.01)).toBeGreaterThan(without)
      })
    )
  })
})

describe("degrees", () => {
  it("are the best of those allowed, the smaller of equals, by any oracle", () => {
    const costs = (degree: number): ChunkTimes => ({
      allToAll: 0.1 + 1 / degree,
      allGather: 0.1 + 2 / degree,
      reduceScatter: 0.1 + 2 / degree,
      expert: 0.1 + 4 / degree
    })
    const all = [1, 2, 3, 4, 5, 6, 7, 8]
    for (const lanes of laneCounts) {
      const chosen = chooseDegree({ costs, lanes, degrees: all, by: "lanes" })
      const oracle = (degree: number, gradient: number) =>
        engineSeconds(costs(degree), degree, gradient, lanes)
      const byEngine = chooseDegree({ costs, lanes, degrees: all, by: oracle })
      expect(chosen.degree).toBe(byEngine.degree)
      expect(close(chosen.seconds, byEngine.seconds)).toBe(true)
    }
    expect(chooseDegree({ costs, lanes: "three", degrees: [4, 2], by: () => 1 }).degree).toBe(2)
    expect(() => chooseDegree({ costs, lanes: "three", degrees: [], by: "model" })).toThrow(
      /no pipeline degree/
    )
    expect([leastCommonMultiple(4, 6), leastCommonMultiple(1, 8), leastCommonMultiple(8, 2)]).toEqual([
      12, 8, 8
    ])
  })
})

const problems: fc.Arbitrary<GradientProblem> = fc
  .record({
    layers: fc.array(
      fc.record({
        elements: fc.integer({ min: 0, max: 100 }),
        denseSeconds: fc.double({ min: 0, max: 5, noNaN: true }),
        times: evenTimes
      }),
      { minLength: 1, maxLength: 4 }
    ),
    fixed: fc.constantFrom(0, 0.2),
    slope: fc.constantFrom(0.02, 0.2),
    lanes: fc.constantFrom("two" as const, "three" as const)
  })
  .map(({ layers, fixed, slope, lanes }) => ({
    layers: layers.map(({ elements, denseSeconds, times: all }) => ({
      elements,
      denseSeconds,
      costs: (degree: number): ChunkTimes => ({
        allToAll: 0.05 + all.allToAll / degree,
        allGather: 0.05 + all.allGather / degree,
        reduceScatter: 0.05 + all.reduceScatter / degree,
        expert: 0.05 + all.expert / degree
      })
    })),
    allReduceSeconds: (elements: number) => (elements > 0 ? fixed + slope * elements : 0),
    lanes,
    degrees: [1, 2, 4],
    by: "lanes" as const
  }))

describe("gradient partition", () => {
  it("sends everything, nothing early; exact <= greedy, both within the bound and no worse than sending all at the end", () => {
    const seen = { better: 0, hidden: 0, tight: 0 }
    fc.assert(
      fc.property(problems, (problem) => {
        const total = problem.layers.reduce((sum, { elements }) => sum + elements, 0)
        const greedy = greedyPartition(problem)
        const exact = exactPartition(problem)
        const slope = problem.allReduceSeconds(2) - problem.allReduceSeconds(1)
        const bound = partitionBoundSeconds(problem, slope)
        const chunked = fixedChunks(problem, 30)
        for (const plan of [greedy, exact, chunked, allAtEnd(problem), besideDense(problem)]) {
          const sent = [...plan.moe, ...plan.dense, plan.rest].reduce((sum, part) => sum + part, 0)
          expect(sent).toBeCloseTo(total, 6)
          expect(plan.seconds).toBeGreaterThanOrEqual(bound - 1e-9)
        }
        expect(exact.seconds).toBeLessThanOrEqual(greedy.seconds + 1e-12)
        expect(exact.seconds).toBeLessThanOrEqual(allAtEnd(problem).seconds + 1e-9)
        if (exact.seconds < greedy.seconds - 1e-9) seen.better++
        if (exact.rest < total - 1e-6) seen.hidden++
        if (exact.seconds < bound * 1.02) seen.tight++
      }),
      { numRuns: 150 }
    )
    expect(seen.better).toBeGreaterThan(5)
    expect(seen.hidden).toBeGreaterThan(50)
    expect(seen.tight).toBeGreaterThan(30)
  })

  it("equals exhaustive search over whole pieces", () => {
    let distinct = 0
    fc.assert(
      fc.property(problems, (problem) => {
        const layers = problem.layers.slice(0, 3).map((layer) => ({ ...layer, elements: 4 }))
        const small = { ...problem, layers }
        // Every way to send whole elements, oldest first.
        let best = Infinity
        const search = (
          index: number,
          pending: number,
          moe: ReadonlyArray<number>,
          dense: ReadonlyArray<number>
        ): void => {
          if (index === layers.length) {
            best = Math.min(best, planOf(small, moe, dense).seconds)
            return
          }
          for (let a = 0; a <= pending; a++) {
            for (let b = 0; a + b <= pending; b++) {
              search(index + 1, pending - a - b + 4, [...moe, a], [...dense, b])
            }
          }
        }
        search(0, 0, [], [])
        const exact = exactPartition(small, 4)
        // The greedy plan may cut inside pieces, and is taken when it is better.
        expect(exact.seconds).toBeLessThanOrEqual(best + 1e-9)
        const greedy = greedyPartition(small).seconds
        if (greedy >= best - 1e-9) {
          expect(close(exact.seconds, best)).toBe(true)
          distinct++
        }
      }),
      { numRuns: 40 }
    )
    expect(distinct).toBeGreaterThan(5)
  })

  it("refuses to send what is not ready", () => {
    const problem: GradientProblem = {
      layers: [{ elements: 10, denseSeconds: 1, costs: () => golden(1) }],
      allReduceSeconds: (elements) => elements,
      lanes: "three",
      degrees: [1],
      by: "lanes"
    }
    expect(() => planOf(problem, [1], [0])).toThrow(/layer 0 sends 1 and 0 of 0 elements/)
  })
})

describe("cost lines", () => {
  const meaning = { unit: "bytes", dtype: "float32", scope: "input" } as const
  it("are found again in measurements without noise, with their error otherwise", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        fc.double({ min: 1e-3, max: 1, noNaN: true }),
        (fixed, slope) => {
          const points = [1, 2, 5, 9].map((size) => ({ size, seconds: fixed + slope * size }))
          for (const weighting of ["absolute", "relative"] as const) {
            const line = fitLine("op", meaning, points, weighting)
            expect(line.fixedSeconds).toBeCloseTo(fixed, 9)
            expect(line.secondsPerUnit).toBeCloseTo(slope, 9)
            expect(line.maxError).toBeLessThan(1e-9)
            expect(secondsAt(line, 7)).toBeCloseTo(fixed + 7 * slope, 9)
          }
        }
      )
    )
    const noisy = fitLine("op", meaning, [
      { size: 1, seconds: 1 },
      { size: 2, seconds: 3 },
      { size: 3, seconds: 3 }
    ])
    // Least squares by hand: slope 1, intercept 1/3.
    expect([noisy.secondsPerUnit, noisy.fixedSeconds]).toEqual(
      [1, 1 / 3].map((value) => expect.closeTo(value, 12))
    )
    expect(noisy.maxError).toBeCloseTo(1 / 3, 12)
    expect(noisy.meanError).toBeCloseTo((1 / 3 + 2 / 9 + 1 / 9) / 3, 12)
    // Neither a negative start nor a negative slope.
    expect(
      fitLine("op", meaning, [
        { size: 1, seconds: 1 },
        { size: 2, seconds: 4 }
      ]).fixedSeconds
    ).toBe(0)
    expect(
      fitLine("op", meaning, [
        { size: 1, seconds: 4 },
        { size: 2, seconds: 1 }
      ]).secondsPerUnit
    ).toBe(0)
    expect(() => fitLine("op", meaning, [{ size: 1, seconds: 1 }])).toThrow(/two sizes/)
    expect(() =>
      fitLine("op", meaning, [
        { size: 1, seconds: 0 },
        { size: 2, seconds: 1 }
      ])
    ).toThrow(/measured 0 s/)
  })

  it("take sizes in their own unit and scope", () => {
    const gathered = { unit: "elements", dtype: "float32", scope: "gathered" } as const
    expect(sizeIn(meaning, 10, 4, 8, "all_to_all")).toBe(40)
    expect(sizeIn(gathered, 10, 4, 8, "all_gather")).toBe(40)
    expect(sizeIn({ ...gathered, scope: "input" }, 10, 4, 8, "all_gather")).toBe(10)
    expect(sizeIn(gathered, 40, 4, 8, "reduce_scatter")).toBe(40)
    expect(sizeIn({ ...gathered, scope: "input" }, 40, 4, 8, "reduce_scatter")).toBe(10)
    expect(sizeIn({ ...gathered, scope: "node" }, 10, 4, 8, "all_to_all")).toBe(80)
    expect(() => sizeIn({ ...meaning, unit: "MAC" }, 1, 1, 1, "all_reduce")).toThrow(/no MACs/)
  })
})

describe("expert placement", () => {
  it("is EPLB's, on the example of its README", () => {
    const loads = [
      [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
      [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]
    ]
    const placed = loads.map((own) => placeExperts(own, 16, 4, { nodes: 2, devices: 8 }).expertOf)
    expect(placed).toEqual([
      [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
      [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]
    ])
  })

  it("places every expert, fills every device, and never loads a device more than without replicas", () => {
    let improved = 0
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 8, maxLength: 8 }),
        fc.constantFrom(1, 2, 4),
        fc.constantFrom(8, 16, 24),
        (loads, groups, replicas) => {
          const world = { nodes: 2, devices: 8 }
          const { expertOf, places } = placeExperts(loads, replicas, groups, world)
          expect(expertOf).toHaveLength(replicas)
          expect(
            places.every((own, expert) => own.length > 0 && own.every((place) => expertOf[place] === expert))
          ).toBe(true)
          const single = placeExperts(loads, 8, groups, world)
          const [more, one] = [imbalance(loads, { expertOf, places }, 8), imbalance(loads, single, 8)]
          expect(more).toBeGreaterThanOrEqual(1 - 1e-12)
          if (more < one - 1e-9) improved++
        }
      )
    )
    expect(improved).toBeGreaterThan(20)
    expect(() => placeExperts([1, 2, 3], 4, 2, { nodes: 2, devices: 2 })).toThrow(/3 experts in 2 groups/)
    expect(() => placeExperts([1, 2], 3, 1, { nodes: 1, devices: 2 })).toThrow(/3 replicas/)
  })
})
