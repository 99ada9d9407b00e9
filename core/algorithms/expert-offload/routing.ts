// Which experts every token of a workload chooses, step by step and layer by layer: what a simulation without values has in
// place of routers. Made from a recorded trace (traces/) or from statistics; turned into the demand that caches see.
import type { Random } from "../../random.ts"
import { layerCall, type Demand, type ExpertShape } from "./demand.ts"
import { RoutingGenerator, type RoutingStatistics } from "./routing-generator.ts"
import { scheduleTokens } from "./token-scheduler.ts"
import { stepsOf, type Workload } from "./workload.ts"

/** Which experts each token chose at every layer, step by step. */
export interface RoutedSteps {
  readonly shape: ExpertShape
  readonly topK: number
  /** `choices[step][layer]` is [tokens, topK], row by row. */
  readonly choices: ReadonlyArray<ReadonlyArray<Int32Array>>
}

/** The experts that each layer call needs, once each, of a routing. */
export const demandOf = ({ shape, choices }: RoutedSteps): Demand => ({
  shape,
  calls: choices.flatMap((layers, step) =>
    layers.map((chosen, layer) => layerCall(shape, step, layer, chosen))
  )
})

/** Tokens of each step. */
export const tokensOf = ({ topK, choices }: RoutedSteps): ReadonlyArray<number> =>
  choices.map((layers) => (layers[0]?.length ?? 0) / topK)

/** Whether every token of every step chose the same. */
export const isSameRouting = (one: RoutedSteps, other: RoutedSteps): boolean =>
  one.choices.length === other.choices.length &&
  one.choices.every((layers, step) =>
    layers.every((chosen, layer) => {
      const others = other.choices[step]![layer]!
      return chosen.length === others.length && chosen.every((expert, i) => expert === others[i])
    })
  )

/**
 * Routing of a workload, drawn from statistics.
 *
 * @param tokenScheduler divide the tokens of two batches anew for each step, by the experts they use
 */
export const generateRouting = (
  shape: ExpertShape,
  topK: number,
  workload: Workload,
  statistics: RoutingStatistics,
  random: Random,
  tokenScheduler = false
): RoutedSteps => {
  const { batch, batches = 1 } = workload
  const generator = new RoutingGenerator(shape, topK, batch * batches, statistics, random)
  const regroup = random.split("token scheduler")
  let waiting: ReadonlyArray<ReadonlyArray<Int32Array>> = []
  const choices = stepsOf(workload).map(({ phase, tokens }) => {
    if (phase === "prefill") return drawStep(generator, shape, topK, batch, tokens / batch)
    if (waiting.length === 0) {
      const drawn = drawStep(generator, shape, topK, batch * batches, 1)
      waiting = tokenScheduler
        ? regrouped(drawn, shape, topK, batch, regroup)
        : Array.from({ length: batches }, (_, index) =>
            drawn.map((layer) => layer.subarray(index * batch * topK, (index + 1) * batch * topK))
          )
    }
    const [now, ...rest] = waiting
    waiting = rest
    return now!
  })
  return { shape, topK, choices }
}

/** `each` further tokens of every sequence, sequence by sequence, at every layer. */
const drawStep = (
  generator: RoutingGenerator,
  { layers }: ExpertShape,
  topK: number,
  sequences: number,
  each: number
): ReadonlyArray<Int32Array> =>
  Array.from({ length: layers }, (_, layer) => {
    const chosen = new Int32Array(sequences * each * topK)
    for (let sequence = 0; sequence < sequences; sequence++) {
      for (let token = 0; token < each; token++) {
        generator.next(sequence, layer, chosen, (sequence * each + token) * topK)
      }
    }
    return chosen
  })

/** The same tokens in two batches of equal size that share as many experts as the scheduler finds. */
const regrouped = (
  drawn: ReadonlyArray<Int32Array>,
  { layers, experts }: ExpertShape,
  topK: number,
  batch: number,
  random: Random
): ReadonlyArray<ReadonlyArray<Int32Array>> => {
  const patterns = Array.from({ length: 2 * batch }, (_, token) => {
    const pattern = new Uint8Array(layers * experts)
    for (let layer = 0; layer < layers; layer++) {
      for (let k = 0; k < topK; k++) pattern[layer * experts + drawn[layer]![token * topK + k]!] = 1
    }
    return pattern
  })
  const { first, second } = scheduleTokens(patterns, random)
  return [first, second].map((tokens) =>
    drawn.map((layer) =>
      Int32Array.from(tokens.flatMap((token) => [...layer.subarray(token * topK, (token + 1) * topK)]))
    )
  )
}
