// What the update rules of data-parallel training are tried on, on either machine: generated instances, their plan and program,
// and what the rule comes to by hand.
import * as fc from "fast-check"
import { expect } from "vitest"
import type { PlannedAlgorithm } from "../../core/algorithms/data-parallel/algorithm.ts"
import type { Optimizer } from "../../core/algorithms/data-parallel/optimizer.ts"
import type { DataParallelSettings } from "../../core/algorithms/data-parallel/algorithms.ts"
import type { Journal } from "../../core/laws/journal.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { algorithmChoice, type AlgorithmChoice } from "../../testing/algorithm.ts"
import { flatWorld, plan } from "../simulate/simulated.ts"
import { partialLocalSgd, streamingDiloco, synchronousSgd, type Replica } from "./by-hand.ts"
import { nameOf, toyModel, toyProfile, type Toy } from "./toy-model.ts"

/** What an algorithm's settings were planned to. */
interface Planned {
  readonly settings: DataParallelSettings
  readonly planned: PlannedAlgorithm
}

export interface Instance {
  readonly toy: Toy
  readonly ranks: number
  readonly choose: AlgorithmChoice
  readonly steps: number
  readonly bytesPerSecond: number
}

const optimizers: fc.Arbitrary<Optimizer> = fc.oneof(
  fc.record({
    name: fc.constant("sgd" as const),
    learningRate: fc.constantFrom(0.1, 0.5),
    momentum: fc.constantFrom(0, 0.9)
  }),
  // Powers of these are exact: however a machine calculates them, a step has the same bits.
  fc.record({
    name: fc.constant("adamw" as const),
    learningRate: fc.constantFrom(0.01, 0.1),
    beta1: fc.constantFrom(0.5, 0.75),
    beta2: fc.constantFrom(0.75, 0.875),
    weightDecay: fc.constantFrom(0, 0.1)
  })
)

/** Small models, worlds and numbers of steps, with settings of the algorithm. */
export const instances = (name: DataParallelSettings["name"]): fc.Arbitrary<Instance> =>
  fc.record({
    toy: fc.record({
      layers: fc
        .array(fc.constantFrom(1, 2, 0), { minLength: 1, maxLength: 6 })
        .filter((counts) => counts.some((count) => count > 0)),
      width: fc.integer({ min: 1, max: 5 }),
      optimizer: optimizers,
      seed: fc.nat({ max: 1e6 })
    }),
    ranks: fc.integer({ min: 1, max: 4 }),
    choose: algorithmChoice({ algorithms: [name], maxPeriod: 5 }),
    steps: fc.integer({ min: 1, max: 14 }),
    bytesPerSecond: fc.constantFrom(Infinity, 100, 10, 3)
  })

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

/** What the update rule says that every rank has learnt. */
const byHand = ({ toy, ranks, steps }: Instance, { settings, planned }: Planned): ReadonlyArray<Replica> => {
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
      return partialLocalSgd(
        toy,
        ranks,
        steps,
        settings.wire,
        planned.describe().steps!.map(({ layers }) => layers),
        settings.order
      )
    case "diloco":
    case "streaming-diloco":
      return streamingDiloco(toy, ranks, steps, settings.wire, rulesOf(settings, toy.layers.length))
  }
}

/** The instance's world and its program, planned. */
export const prepared = ({ toy, ranks, steps, choose, bytesPerSecond }: Instance) => {
  const world = flatWorld(ranks, { bytesPerSecond, latencySeconds: 0 })
  const { settings, planned } = plan(choose(toy.layers.length), toyProfile(toy), world)
  return { world, settings, planned, program: planned.program(toyModel(toy, steps), steps) }
}

/** Every rank's parameters, by layer, when the run that left the journals has ended. */
export const parametersOf = (
  { toy, ranks }: Instance,
  journals: ReadonlyArray<Journal>,
  valuesOf: (rank: number, tensor: Tensor) => TensorData
): ReadonlyArray<ReadonlyArray<ReadonlyArray<TensorData>>> => {
  const tensors = new Map<string, Tensor>()
  for (const entry of journals[0]!.entries)
    if (entry.kind === "alloc") tensors.set(entry.tensor.name, entry.tensor)
  return Array.from({ length: ranks }, (_, rank) =>
    toy.layers.map((count, l) =>
      Array.from({ length: count }, (_, p) => valuesOf(rank, tensors.get(nameOf(l, p))!))
    )
  )
}

/** Holds what was learnt to the rule, bit for bit, and counts the cases that matter. */
export class RuleCheck {
  readonly #seen = { severalRanks: 0, rounded: 0, nextUse: 0, manyPeriods: 0, adamw: 0 }

  check(instance: Instance, plan: Planned, parameters: ReturnType<typeof parametersOf>): void {
    expect(parameters.flat(2).every((tensor) => tensor.every((value) => Number.isFinite(value)))).toBe(true)
    expect(parameters).toEqual(byHand(instance, plan).map((replica) => replica.parameters))
    const seen = this.#seen
    const { settings, planned } = plan
    if (instance.ranks > 1) seen.severalRanks++
    if (settings.wire !== "float32") seen.rounded++
    if (!("deadline" in settings) || settings.deadline === "next-use") seen.nextUse++
    if (instance.steps > planned.periodSteps) seen.manyPeriods++
    if (instance.toy.optimizer.name === "adamw") seen.adamw++
  }

  /** Every kind of case has come up so often. */
  expectSeen(least: number): void {
    for (const [kind, count] of Object.entries(this.#seen)) expect(count, kind).toBeGreaterThanOrEqual(least)
  }
}
