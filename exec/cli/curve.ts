// A number per rank and step, and its mean over ranks.

export interface CurvePoint {
  readonly step: number
  readonly loss: number
}

export class Curve {
  readonly #ranks: number
  readonly #points = new Map<number, Array<number>>()

  constructor(ranks: number) {
    this.#ranks = ranks
  }

  add(rank: number, step: number, loss: number): void {
    let losses = this.#points.get(step)
    if (losses === undefined) this.#points.set(step, (losses = []))
    losses[rank] = loss
  }

  /** In order of steps; only those that every rank has reached. Summed in order of ranks, whichever came first. */
  get means(): ReadonlyArray<CurvePoint> {
    return [...this.#points]
      .filter(([, losses]) => Object.keys(losses).length === this.#ranks)
      .toSorted(([a], [b]) => a - b)
      .map(([step, losses]) => ({ step, loss: losses.reduce((sum, loss) => sum + loss, 0) / this.#ranks }))
  }
}
