import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { planAssignment } from "../../core/algorithms/data-parallel/plan/assignment.ts"
import { planContiguous } from "../../core/algorithms/data-parallel/plan/contiguous.ts"
import {
  type Deadline,
  evaluateSets,
  exposedSecondsOf,
  type SyncProblem,
  syncProblem
} from "../../core/algorithms/data-parallel/plan/cost.ts"
import {
  fillBubbles,
  planPublished,
  publishedSearch
} from "../../core/algorithms/data-parallel/plan/dreamddp.ts"
import { lowerBoundSeconds, suffixLowerBounds } from "../../core/algorithms/data-parallel/plan/lower-bound.ts"
import { equalNumberSets, planEqualNumber } from "../../core/algorithms/data-parallel/plan/partition.ts"
import {
  defaultSyncMethod,
  planSync,
  syncPlanners
} from "../../core/algorithms/data-parallel/plan/planners.ts"
import { makeSyncPlan, type SyncPlan } from "../../core/algorithms/data-parallel/plan/sync-plan.ts"
import {
  bruteForceAssignment,
  bruteForceContiguous,
  type Instance,
  instances,
  largeInstances,
  problemOf
} from "./instances.ts"

/** Counts the kinds of instance that the properties must have met, and asserts that they did. */
const kinds = () => {
  const seen = { exposed: 0, idleLayer: 0, fewerLayers: 0, periodOne: 0, huge: 0, nextUse: 0, tie: 0 }
  return {
    see: (instance: Instance, exposedSeconds: number, attaining: number) => {
      if (exposedSeconds > 0) seen.exposed++
      if (instance.layers.some(({ communicationSeconds }) => communicationSeconds === 0)) seen.idleLayer++
      if (instance.layers.length < instance.period) seen.fewerLayers++
      if (instance.period === 1) seen.periodOne++
      if (instance.layers.some(({ communicationSeconds }) => communicationSeconds === 60)) seen.huge++
      if (instance.deadline === "next-use") seen.nextUse++
      if (attaining > 1 && exposedSeconds > 0) seen.tie++
    },
    allAtLeast: (count: number) => {
      for (const [kind, times] of Object.entries(seen)) expect(times, kind).toBeGreaterThanOrEqual(count)
    }
  }
}

const expectEveryLayerOnce = (problem: SyncProblem, plan: SyncPlan): void => {
  expect(plan.sets).toHaveLength(problem.period)
  expect(plan.sets.flat().toSorted((a, b) => a - b)).toEqual([...problem.communicationSeconds.keys()])
  for (const set of plan.sets) expect(set).toEqual(set.toSorted((a, b) => b - a))
  // Iterations are interchangeable: the one that has the last layer comes first, and so on; those without layers come last.
  const firsts = plan.sets.map((set) => set[0] ?? -1)
  expect(firsts).toEqual(firsts.toSorted((a, b) => b - a))
  const cost = evaluateSets(problem, plan.sets)
  expect(plan.exposedSeconds).toBe(cost.totalSeconds)
  expect(plan.perIterationSeconds).toEqual(cost.perIterationSeconds)
}

describe("against brute force", () => {
  it("the contiguous programme is the optimum over all cuts, and so is the published search", () => {
    const met = kinds()
    fc.assert(
      fc.property(instances({ layersMax: 10, periodMax: 5 }), (instance) => {
        const problem = problemOf(instance)
        const { attaining, bestSeconds } = bruteForceContiguous(problem)
        const contiguous = planContiguous(problem)
        expect(contiguous.exposedSeconds).toBe(bestSeconds)
        // The proof is in dreamddp.ts.
        expect(planPublished(problem).exposedSeconds).toBe(bestSeconds)
        expectEveryLayerOnce(problem, contiguous)
        met.see(instance, bestSeconds, attaining)
      }),
      { numRuns: 4000 }
    )
    met.allAtLeast(100)
  })

  it("the assignment planner is the optimum over all assignments, and its bound is below it", () => {
    const met = kinds()
    let beatsContiguous = 0
    let boundOpen = 0
    fc.assert(
      fc.property(instances({ layersMax: 6, periodMax: 4 }), (instance) => {
        const problem = problemOf(instance)
        const { attaining, bestSeconds } = bruteForceAssignment(problem)
        const plan = planAssignment(problem)
        expect(plan.exposedSeconds).toBe(bestSeconds)
        expect(plan.exact).toBe(true)
        expect(plan.lowerBoundSeconds).toBe(bestSeconds)
        const bound = lowerBoundSeconds(problem)
        expect(bound).toBeLessThanOrEqual(bestSeconds)
        expectEveryLayerOnce(problem, plan)
        if (bestSeconds < planContiguous(problem).exposedSeconds) beatsContiguous++
        if (bound < bestSeconds) boundOpen++
        met.see(instance, bestSeconds, attaining)
      }),
      { numRuns: 3000 }
    )
    met.allAtLeast(50)
    // The planner is not just its first construction, and not just its bound.
    expect(beatsContiguous).toBeGreaterThan(100)
    expect(boundOpen).toBeGreaterThan(20)
  })

  it("no plan that claims a bound lies below the optimum, with local search and search limits cut short", () => {
    let open = 0
    fc.assert(
      fc.property(
        instances({ layersMax: 7, periodMax: 3 }),
        fc.nat(20),
        fc.nat(60),
        (instance, branchNodes, localSearchVisits) => {
          const problem = problemOf(instance)
          const { bestSeconds } = bruteForceAssignment(problem)
          const plan = planAssignment(problem, { branchNodes, localSearchVisits })
          expect(plan.lowerBoundSeconds).toBeLessThanOrEqual(bestSeconds)
          expect(plan.exposedSeconds).toBeGreaterThanOrEqual(bestSeconds)
          expect(plan.exposedSeconds).toBeLessThanOrEqual(planContiguous(problem).exposedSeconds)
          if (plan.exact) expect(plan.exposedSeconds).toBe(bestSeconds)
          else open++
          expectEveryLayerOnce(problem, plan)
        }
      ),
      { numRuns: 2000 }
    )
    expect(open).toBeGreaterThan(5)
  })

  it("the bounds of suffixes hold for the suffixes", () => {
    fc.assert(
      fc.property(instances({ layersMax: 6, periodMax: 3 }), fc.nat(), (instance, cut) => {
        const problem = problemOf(instance)
        const first = cut % (instance.layers.length + 1)
        const communicationSeconds = problem.communicationSeconds.map((seconds, index) =>
          index < first ? 0 : seconds
        )
        const { bestSeconds } = bruteForceAssignment({ ...problem, communicationSeconds })
        expect(suffixLowerBounds(problem)[first]).toBeLessThanOrEqual(bestSeconds)
      }),
      { numRuns: 1000 }
    )
  })
})

describe("on any instance", () => {
  /** Times here are up to 60 layers of 30 s: sums of them are exact to far better than this. */
  const within = (a: number, b: number) => expect(a).toBeLessThanOrEqual(b + 1e-8)

  it("the default planner is never worse than any other; every bound is below every plan", () => {
    let beatsEqual = 0
    let beatsContiguous = 0
    let exposed = 0
    fc.assert(
      fc.property(fc.oneof(instances({ layersMax: 40, periodMax: 12 }), largeInstances), (instance) => {
        const problem = problemOf(instance)
        const plan = planAssignment(problem, { branchNodes: 200, localSearchVisits: 30_000 })
        expectEveryLayerOnce(problem, plan)
        const equal = planEqualNumber(problem)
        const contiguous = planContiguous(problem)
        const published = planPublished(problem)
        for (const other of [equal, contiguous, published]) {
          within(plan.exposedSeconds, other.exposedSeconds)
          within(plan.lowerBoundSeconds, other.exposedSeconds)
          within(other.lowerBoundSeconds, plan.exposedSeconds)
          expectEveryLayerOnce(problem, other)
        }
        within(contiguous.exposedSeconds, equal.exposedSeconds)
        within(contiguous.exposedSeconds, published.exposedSeconds)
        within(published.exposedSeconds, contiguous.exposedSeconds)
        if (plan.exposedSeconds < equal.exposedSeconds) beatsEqual++
        if (plan.exposedSeconds < contiguous.exposedSeconds) beatsContiguous++
        if (plan.exposedSeconds > 0) exposed++
      }),
      { numRuns: 2000 }
    )
    expect(beatsEqual).toBeGreaterThan(500)
    expect(beatsContiguous).toBeGreaterThan(100)
    expect(exposed).toBeGreaterThan(500)
  })

  it("plans of the same instance are equal", () => {
    fc.assert(
      fc.property(largeInstances, (instance) => {
        const plan = () => planSync(problemOf(instance))
        expect(plan()).toEqual(plan())
      }),
      { numRuns: 20 }
    )
  })

  it("the contiguous plan leaves its tightest iteration at least as much time as any cut of equal cost", () => {
    // Everything can be hidden by one iteration, 97 s early; spread over three it is 99 s early in each.
    const layers = [100, 0, 0, 0].map((backwardSeconds, index) => ({
      forwardSeconds: 1,
      backwardSeconds,
      updateSeconds: 0,
      communicationSeconds: index === 0 ? 0 : 1
    }))
    const problem = syncProblem(layers, { period: 3, deadline: "end-of-backward" })
    expect(planContiguous(problem).sets.map((set) => set.filter((layer) => layer > 0).length)).toEqual([
      1, 1, 1
    ])
  })
})

describe("the published search", () => {
  const layer = (backwardSeconds: number, communicationSeconds: number) => ({
    forwardSeconds: 0,
    updateSeconds: 0,
    backwardSeconds,
    communicationSeconds
  })
  const setsOf = (layers: ReadonlyArray<ReturnType<typeof layer>>, period: number) =>
    publishedSearch(syncProblem(layers, { period, deadline: "end-of-backward" })).sets

  it("hides, delays, exposes on a tie, assigns at least one, and gives the rest to the last iteration", () => {
    // Backward 10 s each. Layer 2 (20 s left) fits; layer 1 (10 s left) does not after it, but does on its own: delayed.
    expect(setsOf([layer(10, 0), layer(10, 10), layer(10, 15)], 2)).toEqual([[2], [1, 0]])
    // Layer 1 waits 5 s here; delayed it would wait 5 s in iteration 1 (as its own channel time is 15 s): a tie.
    expect(setsOf([layer(10, 0), layer(10, 15), layer(10, 10)], 3)).toEqual([[2, 1], [0]])
    // The first layer of an iteration does not fit at all: it is exposed and the iteration ends.
    expect(setsOf([layer(10, 1), layer(10, 1), layer(10, 30)], 2)).toEqual([[2], [1, 0]])
    expect(setsOf([layer(10, 9), layer(10, 30), layer(10, 30)], 1)).toEqual([[2, 1, 0]])
  })

  it("remembering gives the schedule of the search as published, which stays within its calls", () => {
    let delayedWins = 0
    let fewer = 0
    fc.assert(
      fc.property(instances({ layersMax: 14, periodMax: 8 }), (instance) => {
        const problem = problemOf(instance)
        const published = publishedSearch(problem, { remember: false })
        const remembered = publishedSearch(problem)
        expect(remembered.sets).toEqual(published.sets)
        expect(published.calls).toBeLessThanOrEqual(2 ** problem.period - 1)
        expect(remembered.calls).toBeLessThanOrEqual(published.calls)
        expect(remembered.calls).toBeLessThanOrEqual(problem.period * instance.layers.length)
        if (remembered.calls < published.calls) fewer++
        // Exposing at once every time, instead of weighing the delay.
        const greedy: Array<Array<number>> = [[]]
        for (let index = instance.layers.length - 1; index >= 0; index--) {
          if (exposedSecondsOf(problem, greedy.at(-1)!.toReversed()) > 0 && greedy.length < problem.period)
            greedy.push([])
          greedy.at(-1)!.push(index)
        }
        if (planPublished(problem).exposedSeconds < evaluateSets(problem, greedy).totalSeconds) delayedWins++
      }),
      { numRuns: 1500 }
    )
    expect(delayedWins).toBeGreaterThan(50)
    expect(fewer).toBeGreaterThan(50)
  })
})

describe("bubble filling", () => {
  it("worked by hand", () => {
    // Backward 10 s each, four layers, H = 2: iteration 0 owns 3 and 2, iteration 1 owns 1 and 0.
    const layers = [1, 2, 4, 5].map((communicationSeconds) => ({
      forwardSeconds: 0,
      updateSeconds: 0,
      backwardSeconds: 10,
      communicationSeconds
    }))
    const problem = syncProblem(layers, { period: 2, deadline: "end-of-backward" })
    const plan = planEqualNumber(problem)
    expect(plan.sets).toEqual([
      [3, 2],
      [1, 0]
    ])
    // Iteration 0 owns the last layer. In iteration 1 layer 1 is released at 30 s; 3 runs 10..15, 2 runs 20..24.
    expect(fillBubbles(problem, plan).sets).toEqual([
      [3, 2],
      [3, 2, 1, 0]
    ])
    // With 16 s for layer 3 it ends at 26 and layer 2 would end at 30: just in time. With 17 s it is the first misfit.
    const slower = (seconds: number) => {
      const communicationSeconds = problem.communicationSeconds.with(3, seconds)
      return fillBubbles({ ...problem, communicationSeconds }, plan).sets[1]
    }
    expect(slower(16)).toEqual([3, 2, 1, 0])
    expect(slower(17)).toEqual([3, 1, 0])
    expect(slower(21)).toEqual([1, 0])
  })

  it("keeps every own layer and the exposed time, for any plan", () => {
    let filled = 0
    fc.assert(
      fc.property(
        instances({ layersMax: 10, periodMax: 4 }),
        fc.constantFrom(...Object.values(syncPlanners)),
        (instance, planner) => {
          const problem = problemOf(instance)
          const plan = planner(problem)
          const more = fillBubbles(problem, plan)
          expect(evaluateSets(problem, more.sets).perIterationSeconds).toEqual(plan.perIterationSeconds)
          for (const [h, set] of plan.sets.entries())
            expect(more.sets[h]!.filter((layer) => set.includes(layer))).toEqual(set)
          if (more.sets.flat().length > instance.layers.length) filled++
        }
      ),
      { numRuns: 1500 }
    )
    expect(filled).toBeGreaterThan(200)
  })
})

describe("plans", () => {
  it("the equal-number partition takes ceil(L/H) layers from the back", () => {
    const sets = (layers: number, period: number) =>
      equalNumberSets({ period, hasParameters: Array.from({ length: layers }, () => true) })
    expect(sets(7, 3)).toEqual([[6, 5, 4], [3, 2, 1], [0]])
    expect(sets(5, 4)).toEqual([[4, 3], [2, 1], [0], []])
    expect(sets(2, 4)).toEqual([[1], [0], [], []])
    expect(sets(4, 1)).toEqual([[3, 2, 1, 0]])
  })

  it("the equal-number partition counts only layers that have parameters", () => {
    const hasParameters = [false, true, false, true, true, false, true, false]
    expect(equalNumberSets({ period: 2, hasParameters })).toEqual([
      [7, 6, 5, 4],
      [3, 2, 1, 0]
    ])
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { maxLength: 12 }),
        fc.integer({ min: 1, max: 5 }),
        (some, period) => {
          const partition = equalNumberSets({ period, hasParameters: some })
          expect(partition).toHaveLength(period)
          expect(partition.flat()).toEqual([...some.keys()].toReversed())
          const counted = partition.map((set) => set.filter((layer) => some[layer]!).length)
          const total = some.filter(Boolean).length
          const most = Math.ceil(total / period)
          // As the artefact: full sets first, then what is left, then nothing.
          expect(counted).toEqual(
            Array.from({ length: period }, (_, h) => Math.max(0, Math.min(most, total - h * most)))
          )
        }
      )
    )
  })

  it("by name, the default being the assignment planner", () => {
    expect(defaultSyncMethod).toBe("assignment")
    fc.assert(
      fc.property(instances({ layersMax: 6, periodMax: 3 }), (instance) => {
        const problem = problemOf(instance)
        for (const method of ["equal-number", "published", "contiguous", "assignment"] as const)
          expect(planSync(problem, method).method).toBe(method)
        expect(planSync(problem)).toEqual(planSync(problem, "assignment"))
      }),
      { numRuns: 50 }
    )
  })

  it("a plan without layers is empty, and one with a layer missing or twice is refused", () => {
    const none = syncProblem([], { period: 2, deadline: "next-use" })
    for (const planner of Object.values(syncPlanners))
      expect(planner(none)).toMatchObject({ sets: [[], []], exposedSeconds: 0, exact: true })
    const times = { forwardSeconds: 1, backwardSeconds: 1, updateSeconds: 0, communicationSeconds: 1 }
    const problem = syncProblem([times, times], { period: 2, deadline: "next-use" })
    expect(() => makeSyncPlan(problem, [[0]], "contiguous")).toThrow(/every layer exactly once/u)
    expect(() => makeSyncPlan(problem, [[0, 1], [1]], "contiguous")).toThrow(/every layer exactly once/u)
    expect(() => makeSyncPlan(problem, [[0], [1], []], "contiguous")).toThrow(/3 sets/u)
  })
})

describe("speed", () => {
  it.each<[Deadline, number]>([
    ["end-of-backward", 0.6],
    ["end-of-backward", 1.5],
    ["next-use", 0.6],
    ["next-use", 1.5]
  ])("1,000 layers and H = 50 in under a second (%s, load %s)", (deadline, load) => {
    // `load` times the communication that 50 backward passes of 1,000 s could hide.
    const layers = Array.from({ length: 1000 }, (_, index) => ({
      forwardSeconds: 0.5,
      backwardSeconds: 0.5 + ((index * 7919) % 1000) / 1000,
      updateSeconds: 0.1,
      communicationSeconds: index % 5 === 4 ? 0 : load * (25 + ((index * 104_729) % 1000) / 12)
    }))
    const problem = syncProblem(layers, { period: 50, deadline })
    for (const planner of Object.values(syncPlanners)) {
      // Time of this process: other work on the machine must not decide.
      const before = process.cpuUsage()
      const plan = planner(problem)
      const { user, system } = process.cpuUsage(before)
      expect((user + system) / 1000, plan.method).toBeLessThan(1000)
      expectEveryLayerOnce(problem, plan)
    }
  })
})
