// Generated settings of every data-parallel algorithm, as a scenario writes them, such that a plan exists.
import * as fc from "fast-check"
import { dataParallelNames, type DataParallelSettings } from "../core/algorithms/data-parallel/settings.ts"
import type { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"

/** `algorithm` of a scenario file. */
export type AlgorithmInput = (typeof DataParallelScenario.Encoded)["algorithm"]
export type AlgorithmName = DataParallelSettings["name"]

export interface AlgorithmConstraints {
  /** Default: all. */
  readonly algorithms?: ReadonlyArray<AlgorithmName>
  /** Longest period of those that have one; but at least the number of fragments of a streaming plan. Default 6. */
  readonly maxPeriod?: number
}

const wires = ["float32", "bfloat16", "float16", "float8", "float4", "int8"] as const
const deadlines = ["end-of-backward", "next-use"] as const

/** Makes settings for a model of so many layers. */
export type AlgorithmChoice = (layers: number) => AlgorithmInput

/** What there is to choose, free of the model: plain numbers, so that it shrinks by itself. */
export const algorithmChoice = (constraints: AlgorithmConstraints = {}): fc.Arbitrary<AlgorithmChoice> => {
  const { algorithms = dataParallelNames, maxPeriod = 6 } = constraints
  return fc
    .record({
      name: fc.constantFrom(...algorithms),
      wire: fc.option(fc.constantFrom(...wires), { freq: 2, nil: undefined }),
      deadline: fc.option(fc.constantFrom(...deadlines), { freq: 2, nil: undefined }),
      order: fc.option(fc.constantFrom("average-then-step", "step-then-average"), {
        freq: 2,
        nil: undefined
      }),
      period: fc.integer({ min: 1, max: maxPeriod }),
      buckets: fc.option(fc.constantFrom("sized", "per-layer", "single"), { freq: 2, nil: undefined }),
      bucketBytes: fc.option(fc.constantFrom(1, 1000, 100_000, 10_000_000), { freq: 2, nil: undefined }),
      planner: fc.option(fc.constantFrom("assignment", "contiguous", "published"), {
        freq: 2,
        nil: undefined
      }),
      flag: fc.boolean(),
      fragmentSize: fc.nat({ max: 7 }),
      pattern: fc.constantFrom("strided", "sequential"),
      offsets: fc.constantFrom("rounded", "even"),
      delay: fc.nat({ max: 5 }),
      share: fc.constantFrom(0.5, 0, 1, 0.25)
    })
    .map((chosen) => (layers: number): AlgorithmInput => {
      const { name, period, flag } = chosen
      const common = chosen.wire === undefined ? {} : { wire: chosen.wire }
      const deadline = chosen.deadline === undefined ? {} : { deadline: chosen.deadline }
      const order = chosen.order === undefined ? {} : { order: chosen.order }
      switch (name) {
        case "s-sgd":
          return { name, ...common }
        case "ddp":
          return {
            name,
            ...common,
            ...deadline,
            ...(chosen.buckets === undefined ? {} : { buckets: chosen.buckets }),
            ...(chosen.bucketBytes === undefined
              ? {}
              : { bucketBytes: chosen.bucketBytes, firstBucketBytes: Math.ceil(chosen.bucketBytes / 4) })
          }
        case "local-sgd":
          return { name, period, ...common }
        case "partial-local-sgd":
          return { name, period, ...common, ...deadline, ...order }
        case "dreamddp":
          return {
            name,
            period,
            ...common,
            ...deadline,
            ...order,
            ...(chosen.planner === undefined ? {} : { planner: chosen.planner }),
            ...(flag ? { fillBubbles: true } : {})
          }
        case "diloco":
          return { name, period, ...common, ...deadline, ...(flag ? { overlap: true } : {}) }
        case "streaming-diloco": {
          const layersPerFragment = 1 + (chosen.fragmentSize % layers)
          const fragments = Math.ceil(layers / layersPerFragment)
          // Every fragment needs a step of its own; even offsets need as many steps for each.
          const own =
            chosen.offsets === "even"
              ? fragments * Math.max(1, Math.floor(period / fragments))
              : Math.max(fragments, period)
          // A fragment is back before the next leaves; rounding may shorten the gap by one step.
          const gap = own % fragments === 0 ? own / fragments : Math.floor(own / fragments)
          return {
            name,
            period: own,
            layersPerFragment,
            pattern: chosen.pattern,
            offsets: chosen.offsets,
            delaySteps: chosen.delay % Math.max(1, gap),
            localShare: chosen.share,
            ...common,
            ...deadline
          }
        }
      }
    })
}

/** Settings of any data-parallel algorithm that has a plan for a model of so many layers. */
export const algorithmSettings = (
  layers: number,
  constraints: AlgorithmConstraints = {}
): fc.Arbitrary<AlgorithmInput> => algorithmChoice(constraints).map((choose) => choose(layers))
