// The speed of a processor over time: piecewise constant, 1 at first; a straggler is a factor below 1, a pause 0.
// Knows times and factors only.

/** From `atSeconds` on, work proceeds at `factor` seconds of work per second. */
export interface SpeedChange {
  readonly atSeconds: number
  readonly factor: number
}

export class SpeedProfile {
  readonly #times: Float64Array
  readonly #factors: Float64Array

  /** Times must ascend strictly and be at least 0; factors must be finite and at least 0. */
  constructor(changes: ReadonlyArray<SpeedChange>) {
    let before = -1
    for (const { atSeconds, factor } of changes) {
      if (!(atSeconds >= 0 && atSeconds < Infinity && atSeconds > before))
        throw new RangeError(`speed changes must ascend in time: ${atSeconds} s after ${before} s`)
      if (!(factor >= 0 && factor < Infinity))
        throw new RangeError(`speed factor ${factor}: must be 0 or more`)
      before = atSeconds
    }
    this.#times = Float64Array.from(changes, (change) => change.atSeconds)
    this.#factors = Float64Array.from(changes, (change) => change.factor)
  }

  /** How long between two readings of a clock that started at `epochSeconds` nothing was done. */
  stoppedSeconds(fromSeconds: number, toSeconds: number, epochSeconds = 0): number {
    let seconds = 0
    for (let i = 0; i < this.#factors.length; i++) {
      if (this.#factors[i] !== 0) continue
      const from = Math.max(fromSeconds, this.#times[i]! - epochSeconds)
      const to = Math.min(toSeconds, (this.#times[i + 1] ?? Infinity) - epochSeconds)
      if (from < to) seconds += to - from
    }
    return seconds
  }

  /**
   * When `seconds` of work begun at `startSeconds` end: the t with integral of speed from start to t = seconds. Both are
   * readings of a clock that started at `epochSeconds`.
   */
  endSeconds(startSeconds: number, seconds: number, epochSeconds = 0): number {
    if (seconds === 0) return startSeconds
    const times = this.#times
    let low = 0 // the first change after the start
    let high = times.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (times[middle]! - epochSeconds <= startSeconds) low = middle + 1
      else high = middle
    }
    let at = startSeconds
    let left = seconds
    for (;;) {
      const factor = low === 0 ? 1 : this.#factors[low - 1]!
      const until = low === times.length ? Infinity : times[low]! - epochSeconds
      const done = factor === 0 ? 0 : factor * (until - at)
      if (done >= left) return at + left / factor
      if (until === Infinity) return Infinity // stopped for good
      left -= done
      at = until
      low++
    }
  }
}
