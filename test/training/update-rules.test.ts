// Every data-parallel algorithm, run with values on simulated machines whose kernels and links take any time, learns exactly
// what its paper's update rule says, calculated by hand: after every number of steps, on every rank, to the last bit.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { PlannedAlgorithm } from "../../core/algorithms/data-parallel/algorithm.ts"
import { dataParallelNames, type DataParallelSettings } from "../../core/algorithms/data-parallel/settings.ts"
import { assertLaws } from "../../core/laws/laws.ts"
import type { Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"
import type { CostModel } from "../../sim/cost/cost-model.ts"
import { algorithmChoice, type AlgorithmChoice } from "../../testing/algorithm.ts"
import { execute, flatWorld, plan } from "../simulate/simulated.ts"
import { partialLocalSgd, streamingDiloco, synchronousSgd, type Replica } from "./by-hand.ts"
import { nameOf, toyModel, toyProfile, type Toy } from "./toy-model.ts"

interface Instance {
  readonly toy: Toy
  readonly ranks: number
  readonly choose: AlgorithmChoice
  readonly steps: number
  readonly bytesPerSecond: number
}

const instances = (name: (typeof dataParallelNames)[number]): fc.Arbitrary<Instance> =>
  fc.record({
    toy: fc.record({
      layers: fc
        .array(fc.constantFrom(1, 2, 0), { minLength: 1, maxLength: 6 })
        .filter((counts) => counts.some((count) => count > 0)),
      width: fc.integer({ min: 1, max: 5 }),
      learningRate: fc.constantFrom(0.1, 0.5),
      momentum: fc.constantFrom(0, 0.9),
      seed: fc.nat({ max: 1e6 })
    }),
    ranks: fc.integer({ min: 1, max: 4 }),
    choose: algorithmChoice({ algorithms: [name], maxPeriod: 5 }),
    steps: fc.integer({ min: 1, max: 14 }),
    bytesPerSecond: fc.constantFrom(Infinity, 100, 10, 3)
  })

/** Any time for any op, so that whatever may overlap does, in some instance. */
const costsOf = (seed: number): CostModel => {
  const random = new Random(seed).split("op times")
  const known = new Map<Op, number>()
  return {
    seconds: (op) => {
      const seconds = known.get(op) ?? random.uniform()
      known.set(op, seconds)
      return seconds
    },
    estimates: []
  }
}

/** Layers to fragments and offsets, from the paper's text: strided is p, p + P, ...; t_p is round((p + 1) H / P). */
const rulesOf = (
  settings: Extract<DataParallelSettings, { name: "diloco" | "streaming-diloco" }>,
  layers: number
) => {
  const { period, outerLearningRate, outerMomentum } = settings
  const outer = { period, outerLearningRate, outerMomentum }
  if (settings.name === "diloco") {
    const all = Array.from({ length: layers }, (_, l) => l)
    return { ...outer, fragments: [all], sentAfter: [period], delaySteps: 0, localShare: 0 }
  }
  const { layersPerFragment = 1, pattern, delaySteps, localShare } = settings
  const count = Math.ceil(layers / layersPerFragment)
  const fragments: Array<Array<number>> = Array.from({ length: count }, () => [])
  for (let l = 0; l < layers; l++)
    fragments[pattern === "strided" ? l % count : Math.floor(l / layersPerFragment)]!.push(l)
  const sentAfter = fragments.map((_, p) => Math.round(((p + 1) * period) / count))
  return { ...outer, fragments, sentAfter, delaySteps, localShare }
}

const byHand = ({ toy, ranks, steps }: Instance, planned: PlannedAlgorithm): ReadonlyArray<Replica> => {
  const { settings, plan } = planned
  switch (settings.name) {
    case "s-sgd":
    case "ddp":
      return synchronousSgd(toy, ranks, steps, settings.wire)
    case "local-sgd": {
      const all = Array.from(toy.layers.keys())
      const sets = Array.from({ length: settings.period }, (_, h) => (h === settings.period - 1 ? all : []))
      return partialLocalSgd(toy, ranks, steps, settings.wire, sets, "step-then-average")
    }
    case "partial-local-sgd":
    case "dreamddp":
      if (plan.kind !== "partial-local-sgd") throw new Error(`a plan of kind ${plan.kind}`)
      return partialLocalSgd(toy, ranks, steps, settings.wire, plan.details.sets, settings.order)
    case "diloco":
    case "streaming-diloco":
      return streamingDiloco(toy, ranks, steps, settings.wire, rulesOf(settings, toy.layers.length))
  }
}

/** Parameters of every rank after the program has run, by name. */
const simulated = (instance: Instance) => {
  const { toy, ranks, steps, bytesPerSecond } = instance
  const world = flatWorld(ranks, { bytesPerSecond, latencySeconds: 0 })
  const { planned } = plan(instance.choose(toy.layers.length), toyProfile(toy), world)
  const { simulated, execution } = execute({
    world,
    program: planned.program(toyModel(toy, steps), steps),
    costs: costsOf(toy.seed),
    values: () => undefined
  })
  assertLaws(execution)
  const tensors = new Map<string, Tensor>()
  for (const entry of execution.journals![0]!.entries)
    if (entry.kind === "alloc") tensors.set(entry.tensor.name, entry.tensor)
  const parameters = Array.from({ length: ranks }, (_, rank) =>
    toy.layers.map((count, l) =>
      Array.from({ length: count }, (_, p) => simulated.values!.of(rank, tensors.get(nameOf(l, p))!))
    )
  )
  return { planned, parameters }
}

describe("what a run learns is what its update rule says", () => {
  for (const name of dataParallelNames) {
    it(name, () => {
      const seen = { severalRanks: 0, rounded: 0, nextUse: 0, manyPeriods: 0 }
      const property = fc.property(instances(name), (instance) => {
        const { planned, parameters } = simulated(instance)
        const expected = byHand(instance, planned)
        expect(parameters.flat(2).every((tensor) => tensor.every((value) => Number.isFinite(value)))).toBe(
          true
        )
        expect(parameters).toEqual(expected.map((replica) => replica.parameters))
        if (instance.ranks > 1) seen.severalRanks++
        if (planned.settings.wire !== "float32") seen.rounded++
        if (!("deadline" in planned.settings) || planned.settings.deadline === "next-use") seen.nextUse++
        if (instance.steps > planned.periodSteps) seen.manyPeriods++
      })
      fc.assert(property, { numRuns: 60 })
      for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(5)
    })
  }
})
