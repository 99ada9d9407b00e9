// Predictors that need no training: what was, will be.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import type { Predictor } from "./predictor.ts"

const none: ReadonlyArray<ExpertId> = []

/** A layer needs what it needed in the step before. */
export class PreviousToken implements Predictor {
  readonly #last: Array<ReadonlyArray<ExpertId>>

  constructor({ layers }: ExpertShape) {
    this.#last = Array.from({ length: layers }, () => none)
  }

  observe({ layer, needed }: LayerCall): void {
    this.#last[layer] = needed
  }

  predict(_: number, layer: number): ReadonlyArray<ExpertId> {
    return this.#last[layer]!
  }
}

/** A layer needs the experts with the numbers that the last layer before it needed in this step. */
export class PreviousLayer implements Predictor {
  readonly #experts: number
  #last: LayerCall | undefined

  constructor({ experts }: ExpertShape) {
    this.#experts = experts
  }

  observe(call: LayerCall): void {
    this.#last = call
  }

  predict(step: number, layer: number): ReadonlyArray<ExpertId> {
    const last = this.#last
    if (last === undefined || last.step !== step || last.layer >= layer) return none
    return last.needed.map((id) => id + (layer - last.layer) * this.#experts)
  }
}

/** A layer needs all its experts: what schemes that stream whole layers assume. */
export class Everything implements Predictor {
  readonly #layers: ReadonlyArray<ReadonlyArray<ExpertId>>

  constructor({ layers, experts }: ExpertShape) {
    this.#layers = Array.from({ length: layers }, (_, layer) =>
      Array.from({ length: experts }, (__, expert) => layer * experts + expert)
    )
  }

  observe(): void {}

  predict(_: number, layer: number): ReadonlyArray<ExpertId> {
    return this.#layers[layer]!
  }
}
