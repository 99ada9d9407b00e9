// Generated settings of every data-parallel algorithm, as a scenario writes them, such that a plan exists.
import * as fc from "fast-check"
import {
  dataParallelNamed,
  dataParallelNames,
  type DataParallelName
} from "../core/algorithms/data-parallel/algorithms.ts"
import { drawn } from "./draw.ts"
import type { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"

/** `algorithm` of a scenario file. */
export type AlgorithmInput = (typeof DataParallelScenario.Encoded)["algorithm"]
/** A data-parallel algorithm, as a scenario writes it. */
export type AlgorithmName = DataParallelName

/** Which algorithms are drawn, and how long their periods. */
export interface AlgorithmConstraints {
  /** Default: all. */
  readonly algorithms?: ReadonlyArray<AlgorithmName>
  /** Longest period of those that have one; but at least the number of fragments of a streaming plan. Default 6. */
  readonly maxPeriod?: number
}

/** Makes settings for a model of so many layers. */
export type AlgorithmChoice = (layers: number) => AlgorithmInput

/** What there is to choose, free of the model: plain values, so that it shrinks by itself. */
export const algorithmChoice = (constraints: AlgorithmConstraints = {}): fc.Arbitrary<AlgorithmChoice> => {
  const { algorithms = dataParallelNames, maxPeriod = 6 } = constraints
  return fc.oneof(
    { withCrossShrink: true },
    // What the algorithm of this name makes are settings of this name.
    ...algorithms.map(
      (name) => drawn(dataParallelNamed(name).arbitrary({ maxPeriod })) as fc.Arbitrary<AlgorithmChoice>
    )
  )
}

/** Settings of any data-parallel algorithm that has a plan for a model of so many layers. */
export const algorithmSettings = (
  layers: number,
  constraints: AlgorithmConstraints = {}
): fc.Arbitrary<AlgorithmInput> => algorithmChoice(constraints).map((choose) => choose(layers))
