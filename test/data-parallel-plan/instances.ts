// Generated scheduling instances, small enough for brute force, and the oracles that know nothing of the planners.

import * as fc from "fast-check"
import {
  type Deadline,
  evaluateSets,
  type LayerTimes,
  type SyncProblem,
  syncProblem,
  type UpdateOrder
} from "../../core/algorithms/data-parallel/plan/cost.ts"

export interface Instance {
  readonly layers: ReadonlyArray<LayerTimes>
  readonly period: number
  readonly deadline: Deadline
  readonly order: UpdateOrder
}

export const problemOf = (instance: Instance): SyncProblem => syncProblem(instance.layers, instance)

/**
 * Whole seconds, so that every sum is exact in float64 and equal costs compare equal. Some layers have nothing to
 * synchronise, some times are 0, and now and then one layer is as large as all others together (a tied embedding).
 */
export const instances = (limits: {
  readonly layersMax: number
  readonly periodMax: number
}): fc.Arbitrary<Instance> => {
  const communication = fc.oneof(
    { weight: 1, arbitrary: fc.constant(0) },
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 6 }) },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 20 }) }
  )
  const layer = fc.record({
    forwardSeconds: fc.integer({ min: 0, max: 4 }),
    backwardSeconds: fc.integer({ min: 0, max: 8 }),
    updateSeconds: fc.integer({ min: 0, max: 2 }),
    communicationSeconds: communication
  })
  return fc
    .record({
      layers: fc.array(layer, { minLength: 1, maxLength: limits.layersMax, size: "max" }),
      huge: fc.option(fc.nat(), { freq: 6 }),
      period: fc.integer({ min: 1, max: limits.periodMax }),
      deadline: fc.constantFrom<Deadline>("end-of-backward", "next-use"),
      order: fc.constantFrom<UpdateOrder>("average-then-step", "step-then-average")
    })
    .map(({ huge, layers, ...rules }) => ({
      ...rules,
      layers:
        huge === null
          ? layers
          : layers.map((times, index) =>
              index === huge % layers.length ? { ...times, communicationSeconds: 60 } : times
            )
    }))
}

/** Instances with arbitrary fractions of a second and more layers, where brute force cannot follow. */
export const largeInstances: fc.Arbitrary<Instance> = fc.record({
  layers: fc.array(
    fc.record({
      forwardSeconds: fc.double({ min: 0, max: 1, noNaN: true }),
      backwardSeconds: fc.double({ min: 0, max: 2, noNaN: true }),
      updateSeconds: fc.double({ min: 0, max: 0.1, noNaN: true }),
      communicationSeconds: fc.oneof(
        fc.constant(0),
        fc.double({ min: 0, max: 3, noNaN: true }),
        fc.double({ min: 0, max: 30, noNaN: true })
      )
    }),
    { minLength: 1, maxLength: 60, size: "max" }
  ),
  period: fc.integer({ min: 1, max: 12 }),
  deadline: fc.constantFrom<Deadline>("end-of-backward", "next-use"),
  order: fc.constantFrom<UpdateOrder>("average-then-step", "step-then-average")
})

interface BruteForce {
  readonly bestSeconds: number
  /** How many of the schedules tried attain it: more than one is a tie. */
  readonly attaining: number
}

/** Least exposed seconds over all H^L assignments. */
export const bruteForceAssignment = (problem: SyncProblem): BruteForce => {
  const layers = problem.communicationSeconds.length
  let bestSeconds = Number.POSITIVE_INFINITY
  let attaining = 0
  for (let code = 0; code < problem.period ** layers; code++) {
    const sets: Array<Array<number>> = Array.from({ length: problem.period }, () => [])
    let digits = code
    for (let layer = 0; layer < layers; layer++) {
      sets[digits % problem.period]!.push(layer)
      digits = Math.floor(digits / problem.period)
    }
    const { totalSeconds } = evaluateSets(problem, sets)
    if (totalSeconds < bestSeconds) {
      bestSeconds = totalSeconds
      attaining = 0
    }
    if (totalSeconds === bestSeconds) attaining++
  }
  return { bestSeconds, attaining }
}

/** Least exposed seconds over all cuts into at most H consecutive blocks. */
export const bruteForceContiguous = (problem: SyncProblem): BruteForce => {
  const layers = problem.communicationSeconds.length
  let bestSeconds = Number.POSITIVE_INFINITY
  let attaining = 0
  for (let cuts = 0; cuts < 2 ** (layers - 1); cuts++) {
    const sets: Array<Array<number>> = [[]]
    for (let layer = 0; layer < layers; layer++) {
      sets.at(-1)!.push(layer)
      if (layer < layers - 1 && (cuts >> layer) & 1) sets.push([])
    }
    if (sets.length > problem.period) continue
    const { totalSeconds } = evaluateSets(problem, sets)
    if (totalSeconds < bestSeconds) {
      bestSeconds = totalSeconds
      attaining = 0
    }
    if (totalSeconds === bestSeconds) attaining++
  }
  return { bestSeconds, attaining }
}

/**
 * Plays the timeline op by op for `periods` periods: one compute lane in the documented order, one FIFO channel, waits
 * where the deadline puts them. Returns the seconds of one period beyond pure compute, in steady state.
 */
export const replayExposedSeconds = (
  instance: Instance,
  sets: ReadonlyArray<ReadonlyArray<number>>,
  periods: number
): number => {
  const { layers, period, deadline, order } = instance
  const syncEnds = layers.map(() => Number.NEGATIVE_INFINITY)
  let clock = 0
  let channelFree = 0
  const starts: Array<number> = []
  const compute = (seconds: number) => {
    clock += seconds
  }
  const waitFor = (layer: number) => {
    clock = Math.max(clock, syncEnds[layer]!)
  }
  const release = (layer: number, iteration: number) => {
    const seconds = layers[layer]!.communicationSeconds
    if (seconds === 0 || !(sets[iteration] ?? []).includes(layer)) return
    channelFree = Math.max(channelFree, clock) + seconds
    syncEnds[layer] = channelFree
  }
  for (let round = 0; round < periods; round++)
    for (let iteration = 0; iteration < period; iteration++) {
      if (iteration === 0) starts.push(clock)
      for (const [layer, times] of layers.entries()) {
        if (order === "average-then-step") {
          waitFor(layer)
          compute(times.updateSeconds)
        } else waitFor(layer)
        compute(times.forwardSeconds)
      }
      for (let layer = layers.length - 1; layer >= 0; layer--) {
        compute(layers[layer]!.backwardSeconds)
        if (order === "step-then-average") compute(layers[layer]!.updateSeconds)
        release(layer, iteration)
      }
      if (deadline === "end-of-backward") for (const layer of layers.keys()) waitFor(layer)
    }
  const pure = layers.reduce(
    (sum, times) => sum + times.forwardSeconds + times.backwardSeconds + times.updateSeconds,
    0
  )
  return starts.at(-1)! - starts.at(-2)! - period * pure
}
