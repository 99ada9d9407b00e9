// A predictor of stated quality: knows the demand, and errs at given rates. To ask what accuracy is worth.
import { Random } from "../../../random.ts"
import type { Demand, ExpertId } from "../demand.ts"
import type { Predictor } from "./predictor.ts"

interface OracleQuality {
  /** Probability that a needed expert is predicted: the set recall. */
  readonly recall: number
  /** Probability that an expert which is not needed is predicted. */
  readonly falsePositiveRate: number
}

/**
 * Each call's errors are drawn from a stream of its own, so a prediction is the same whenever it is asked for. Needed and
 * falsely predicted experts stand in random order: an oracle of this quality does not know which of them are right.
 */
export class Oracle implements Predictor {
  readonly #demand: Demand
  readonly #quality: OracleQuality
  readonly #random: Random
  readonly #calls = new Map<number, ReadonlyArray<ExpertId>>()
  readonly #predictions = new Map<number, ReadonlyArray<ExpertId>>()

  constructor(demand: Demand, quality: OracleQuality, random: Random) {
    this.#demand = demand
    this.#quality = quality
    this.#random = random
    for (const call of demand.calls) this.#calls.set(this.#key(call.step, call.layer), call.needed)
  }

  observe(): void {}

  predict(step: number, layer: number): ReadonlyArray<ExpertId> {
    const key = this.#key(step, layer)
    let prediction = this.#predictions.get(key)
    if (prediction === undefined) this.#predictions.set(key, (prediction = this.#draw(key, layer)))
    return prediction
  }

  #key(step: number, layer: number): number {
    return step * this.#demand.shape.layers + layer
  }

  #draw(key: number, layer: number): ReadonlyArray<ExpertId> {
    const { experts } = this.#demand.shape
    const needed = new Set(this.#calls.get(key) ?? [])
    const { recall, falsePositiveRate } = this.#quality
    const random = this.#random.split(String(key))
    const drawn: Array<{ readonly id: ExpertId; readonly place: number }> = []
    for (let id = layer * experts; id < (layer + 1) * experts; id++) {
      const chance = needed.has(id) ? recall : falsePositiveRate
      // Both are drawn for every expert, so that one more or less changes no other.
      const [inside, place] = [random.uniform() < chance, random.uint32()]
      if (inside) drawn.push({ id, place })
    }
    return drawn.toSorted((a, b) => a.place - b.place || a.id - b.id).map(({ id }) => id)
  }
}
