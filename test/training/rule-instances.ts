// What the update rules of data-parallel training are tried on, on either machine: generated instances, their plan and program,
// and what the rule comes to by hand.
import * as fc from "fast-check"
import { expect } from "vitest"
import type { Accumulation } from "../../core/algorithms/data-parallel/accumulation.ts"
import type { PlannedAlgorithm } from "../../core/algorithms/data-parallel/algorithm.ts"
import type { Optimizer } from "../../core/algorithms/data-parallel/optimizer.ts"
import type {
  DataParallelName,
  DataParallelSettings
} from "../../core/algorithms/data-parallel/algorithms.ts"
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

interface Instance {
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

/** A step of one batch, or of several. */
export const accumulations: fc.Arbitrary<Accumulation | undefined> = fc.constantFrom(
  undefined,
  { microBatches: 2, synchronize: "last" as const },
  { microBatches: 2, synchronize: "each" as const },
  { microBatches: 3, synchronize: "last" as const },
  { microBatches: 3, synchronize: "each" as const }
)

/** Small models, worlds and numbers of steps, with settings of the algorithm. */
export const instances = (name: DataParallelSettings["name"]): fc.Arbitrary<Instance> =>
  fc
    .record({
      toy: fc.record({
        layers: fc
          .array(fc.constantFrom(1, 2, 0), { minLength: 1, maxLength: 6 })
          .filter((counts) => counts.some((count) => count > 0)),
        width: fc.integer({ min: 1, max: 5 }),
        optimizer: optimizers,
        seed: fc.nat({ max: 1e6 }),
        clipNorm: fc.constantFrom(undefined, 0.5, 4)
      }),
      ranks: fc.integer({ min: 1, max: 4 }),
      choose: algorithmChoice({ algorithms: [name], maxPeriod: 5 }),
      steps: fc.integer({ min: 1, max: 14 }),
      bytesPerSecond: fc.constantFrom(Infinity, 100, 10, 3),
      accumulation: accumulations
    })
    .map(({ toy, accumulation, ...rest }) => ({ ...rest, toy: { ...toy, accumulation } }))

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
  // all that are drawn say when a fragment is applied
  const { layersPerFragment = 1, pattern, delaySteps = 1, localShare } = settings
  const count = settings.fragments ?? Math.ceil(layers / layersPerFragment)
  // In order, as many to each as to the next, or one fewer; or full ones and a rest. These models name no blocks.
  const inOrder = (l: number): number =>
    settings.fragments === undefined
      ? Math.floor(l / layersPerFragment)
      : Array.from({ length: count }, (_, p) => p).findLast((p) => Math.floor((p * layers) / count) <= l)!
  const fragments: Array<Array<number>> = Array.from({ length: count }, () => [])
  for (let l = 0; l < layers; l++) fragments[pattern === "strided" ? l % count : inOrder(l)]!.push(l)
  const sentAfter = fragments.map((_, p) => Math.round(((p + 1) * period) / count))
  return { ...outer, fragments, sentAfter, delaySteps, localShare }
}

type Rule<S extends DataParallelSettings> = (
  instance: Instance,
  settings: S,
  planned: PlannedAlgorithm
) => ReadonlyArray<Replica>

const synchronous: Rule<DataParallelSettings> = ({ toy, ranks, steps }, { wire }) =>
  synchronousSgd(toy, ranks, steps, wire)

const partial: Rule<Extract<DataParallelSettings, { order: unknown }>> = (
  { toy, ranks, steps },
  { wire, order },
  planned
) => {
  const sets = planned.describe().steps!.map(({ layers }) => layers)
  return partialLocalSgd(toy, ranks, steps, wire, sets, order)
}

const fragmented: Rule<Extract<DataParallelSettings, { outerMomentum: number }>> = (
  { toy, ranks, steps },
  settings
) => streamingDiloco(toy, ranks, steps, settings.wire, rulesOf(settings, toy.layers.length))

/** What the update rule of an algorithm says that every rank has learnt. */
const rules: {
  readonly [Name in DataParallelName]?: Rule<Extract<DataParallelSettings, { name: Name }>>
} = {
  "s-sgd": synchronous,
  ddp: synchronous,
  "local-sgd": ({ toy, ranks, steps }, { period, wire }) => {
    const all = Array.from(toy.layers.keys())
    const sets = Array.from({ length: period }, (_, h) => (h === period - 1 ? all : []))
    return partialLocalSgd(toy, ranks, steps, wire, sets, "step-then-average")
  },
  "partial-local-sgd": partial,
  dreamddp: partial,
  diloco: fragmented,
  "streaming-diloco": fragmented
}

/** Algorithms whose rule is written down here. */
export const ruledNames = Object.keys(rules) as ReadonlyArray<DataParallelName>

const byHand = (instance: Instance, { settings, planned }: Planned): ReadonlyArray<Replica> =>
  (rules[settings.name] as Rule<DataParallelSettings>)(instance, settings, planned)

/** The instance's world, and its algorithm planned for it. */
export const plannedFor = ({ toy, ranks, choose, bytesPerSecond }: Instance) => {
  const world = flatWorld(ranks, { bytesPerSecond, latencySeconds: 0 })
  const { settings, planned } = plan(choose(toy.layers.length), toyProfile(toy), world)
  return { world, settings, planned }
}

/** The instance's world and its program, planned. */
export const prepared = (instance: Instance) => {
  const { toy, steps } = instance
  const ready = plannedFor(instance)
  return { ...ready, program: ready.planned.program(toyModel(toy, steps), steps) }
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
  readonly #seen = {
    severalRanks: 0,
    rounded: 0,
    nextUse: 0,
    manyPeriods: 0,
    adamw: 0,
    clipped: 0,
    last: 0,
    each: 0
  }

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
    if (instance.toy.clipNorm !== undefined) seen.clipped++
    if (instance.toy.accumulation !== undefined) seen[instance.toy.accumulation.synchronize]++
  }

  /** Every kind of case has come up so often. */
  expectSeen(least: number): void {
    for (const [kind, count] of Object.entries(this.#seen)) expect(count, kind).toBeGreaterThanOrEqual(least)
  }
}
