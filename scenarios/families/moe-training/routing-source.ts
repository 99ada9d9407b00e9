// Where a timing-only simulation's routings come from: drawn, or read from a file. One answer for each layer and step, the
// same for every rank that asks.
import * as Effect from "effect/Effect"
import { moeRole } from "../../../core/algorithms/moe-training/model.ts"
import {
  countChoices,
  drawChoices,
  expertImbalance,
  type Choices,
  type RecordedTokens,
  type RoutingSizes
} from "../../../core/algorithms/moe-training/routing.ts"
import { InputError } from "../../../core/input-error.ts"
import type { ReadSource } from "../../../core/machine/machine.ts"
import { foldRouting } from "../../../traces/routing-file.ts"
import { locate } from "../../load.ts"

interface RoutingSource {
  /** What the program reads: each rank reads a layer's choices once a step. */
  readonly source: ReadSource
  /** Busiest expert over the mean, averaged over layers and steps so far. */
  readonly imbalance: () => number
}

export const routingSource = (
  choices: (layer: number, step: number) => Choices,
  experts: number
): RoutingSource => {
  const known = new Map<string, Choices>()
  return {
    source: (_, tensor, step) => {
      const role = moeRole(tensor)
      if (role?.kind !== "choices") return undefined
      const { layer } = role
      const key = `${layer} ${step}`
      let counts = known.get(key)
      if (counts === undefined) known.set(key, (counts = choices(layer, step)))
      return counts
    },
    imbalance: () => {
      const all = [...known.values()].map((counts) => expertImbalance(counts, experts))
      return all.length === 0 ? 1 : all.reduce((sum, one) => sum + one, 0) / all.length
    }
  }
}

export const drawn = (sizes: RoutingSizes, skew: number, seed: number) => (layer: number, step: number) =>
  drawChoices(sizes, skew, seed, layer, step)

/** A recorded routing: steps and layers beyond what was recorded begin again. */
export const recorded = (
  file: string,
  named: string,
  sizes: RoutingSizes
): Effect.Effect<(layer: number, step: number) => Choices, InputError> =>
  Effect.gen(function* () {
    const refuse = (value: string, accepted: string) =>
      new InputError({ file, field: "routing.trace", value: `${named} (${value})`, accepted })
    const byStep = yield* foldRouting(
      locate(file, named),
      new Map<number, Map<number, Array<Array<number>>>>(),
      (steps, part) => {
        for (let row = 0; row < part.step.length; row++) {
          let layers = steps.get(part.step[row]!)
          if (layers === undefined) steps.set(part.step[row]!, (layers = new Map()))
          let tokens = layers.get(part.layer[row]!)
          if (tokens === undefined) layers.set(part.layer[row]!, (tokens = []))
          ;(tokens[part.token[row]!] ??= []).push(part.expert[row]!)
        }
        return steps
      }
    ).pipe(
      Effect.mapError((error) =>
        refuse(`${error.field}: ${error.value}`, `a routing file; here ${error.accepted}`)
      )
    )
    const steps = [...byStep.keys()].toSorted((a, b) => a - b).map((step) => byStep.get(step)!)
    if (steps.length === 0) return yield* refuse("no rows", "a routing file with tokens")
    const all: Array<ReadonlyArray<RecordedTokens>> = []
    for (const layers of steps) {
      const numbers = [...layers.keys()].toSorted((a, b) => a - b)
      const own: Array<RecordedTokens> = []
      for (const number of numbers) {
        // Tokens that a file leaves out are skipped.
        const tokens = layers.get(number)!.filter((experts) => experts !== undefined)
        for (const experts of tokens) {
          const beyond = experts.find((expert) => expert >= sizes.experts)
          if (beyond !== undefined) {
            return yield* refuse(`expert ${beyond}`, `experts below model.experts, ${sizes.experts}`)
          }
          if (experts.length !== sizes.topK) {
            return yield* refuse(
              `${experts.length} experts of a token`,
              `model.topK for each token, ${sizes.topK}`
            )
          }
        }
        own.push(tokens)
      }
      all.push(own)
    }
    return (layer, step) => {
      const layers = all[step % all.length]!
      return countChoices(sizes, layers[layer % layers.length]!)
    }
  })
