// What a rank's collectives wait for that begin while its compute lane runs: their kernels come to the device when a kernel's blocks hold
// all of it, and get multiprocessors as these end. Knows the engine; nothing of ops, nor of how long the wait is.
import type { Activity, Engine } from "./engine/engine.ts"

export class BesideCompute {
  readonly #engine: Engine
  readonly #whenEnded: (activity: Activity, then: () => void) => void
  readonly #later: (task: () => void) => void
  #underWay = 0
  readonly #waiting = new Set<() => void>()
  #hasWaited = false

  /** `later`: calls at the same moment, when all that happens then has happened. */
  constructor(
    engine: Engine,
    whenEnded: (activity: Activity, then: () => void) => void,
    later: (task: () => void) => void
  ) {
    this.#engine = engine
    this.#whenEnded = whenEnded
    this.#later = later
  }

  /** Whether any collective has waited. */
  get hasWaited(): boolean {
    return this.#hasWaited
  }

  /** A kernel of the compute lane, from one activity's end to another's. */
  runs(turn: Activity, last: Activity): void {
    this.#whenEnded(turn, () => this.#underWay++)
    this.#whenEnded(last, () => {
      this.#underWay--
      // The lane's next kernel may begin at this moment.
      if (this.#underWay === 0 && this.#waiting.size > 0) this.#later(() => this.#letGo())
    })
  }

  /**
   * Ends, in place of `turn`, when kernels of the collective whose turn has come are on the device: at once where the lane is idle, else
   * after so many seconds, as they are then, or when it has become idle before.
   */
  placed(turn: Activity, seconds: () => number): Activity {
    const engine = this.#engine
    const placed = engine.work(0)
    engine.after(placed, turn)
    let open = true
    const go = (): void => {
      this.#waiting.delete(go)
      if (open) engine.release(placed)
      open = false
    }
    const begin = (): void => {
      if (this.#underWay === 0) return go()
      this.#hasWaited = true
      this.#waiting.add(go)
      const timer = engine.work(seconds())
      this.#whenEnded(timer, go)
      engine.release(timer)
    }
    // What lets a collective begin often lets the next kernel begin too.
    this.#whenEnded(turn, () => this.#later(begin))
    return placed
  }

  #letGo(): void {
    if (this.#underWay > 0) return
    for (const go of this.#waiting) go()
  }
}
