// A rank's compute lane that is slower while its collectives are under way: their kernels take multiprocessors and memory bandwidth
// also while they wait for other ranks. Work is a flow over a link of its own, a whole of 1, which has less while there are any.
// The rank's own speed, of a straggler or in a pause, is a factor of the same link. Knows the engine; nothing of ops.
import type { Activity, Engine, Route, SpeedChange } from "./engine/engine.ts"

export class SlowedCompute {
  readonly #engine: Engine
  readonly #link: number
  readonly #slowdown: number
  readonly #route: Route
  #underWay = 0
  #speed = 1
  /** Busy though it stood: until the last change, and how busy it was when it last stopped. */
  #stoodSeconds = 0
  #busyWhenStopped = 0

  /**
   * `link`: of the engine, of 1 byte a second. `speed`: the rank's own over time, each change made at its moment, with `at`.
   */
  constructor(
    engine: Engine,
    link: number,
    slowdown: number,
    speed: ReadonlyArray<SpeedChange>,
    at: (seconds: number, then: () => void) => void
  ) {
    this.#engine = engine
    this.#link = link
    this.#slowdown = slowdown
    this.#route = engine.route([link])
    for (const { atSeconds, factor } of speed)
      at(atSeconds, () => {
        this.#changeSpeed(factor)
      })
  }

  /** Work of so many seconds at full speed. */
  work(seconds: number): Activity {
    return this.#engine.flow(this.#route, seconds, 0)
  }

  /** One more collective of the rank, from when its turn has come until it has ended. */
  begin(): void {
    if (++this.#underWay === 1) this.#set()
  }

  end(): void {
    if (--this.#underWay === 0) this.#set()
  }

  #changeSpeed(factor: number): void {
    const busy = this.#engine.linkBusySeconds(this.#link)
    if (this.#speed === 0) this.#stoodSeconds += busy - this.#busyWhenStopped
    if (factor === 0) this.#busyWhenStopped = busy
    this.#speed = factor
    this.#set()
  }

  #set(): void {
    const bytesPerSecond = this.#underWay > 0 ? this.#speed / this.#slowdown : this.#speed
    this.#engine.setLink(this.#link, { bytesPerSecond })
  }

  /** That it has worked, up to now; while the rank is away, work that it has begun stands. */
  get busySeconds(): number {
    const busy = this.#engine.linkBusySeconds(this.#link)
    return busy - this.#stoodSeconds - (this.#speed === 0 ? busy - this.#busyWhenStopped : 0)
  }
}
