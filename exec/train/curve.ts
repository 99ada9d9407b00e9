// A number per rank and step, and its mean over ranks.

/** A loss (nats per token) after so many steps. */
export interface CurvePoint {
  /** Steps taken: 1 for the first. */
  readonly step: number
  readonly loss: number
}

export class Curve {
  readonly #ranks: number
  readonly #underway = new Map<number, { readonly losses: Float64Array; missing: number }>()
  readonly #means: Array<CurvePoint> = []

  constructor(ranks: number) {
    this.#ranks = ranks
  }

  /** A rank's number, once for each step, in order of steps. The mean, when it was the last to come. */
  add(rank: number, step: number, loss: number): number | undefined {
    let point = this.#underway.get(step)
    if (point === undefined) {
      point = { losses: new Float64Array(this.#ranks), missing: this.#ranks }
      this.#underway.set(step, point)
    }
    point.losses[rank] = loss
    if (--point.missing > 0) return undefined
    this.#underway.delete(step)
    // In order of ranks, whichever came first: a sum of floats depends on it.
    const mean = point.losses.reduce((sum, one) => sum + one, 0) / this.#ranks
    this.#means.push({ step, loss: mean })
    return mean
  }

  /** In order of steps; only those that every rank has reached. */
  get means(): ReadonlyArray<CurvePoint> {
    return this.#means
  }
}
