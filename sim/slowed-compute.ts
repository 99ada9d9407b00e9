// A rank's compute lane that is slower while its collectives are under way: their kernels take multiprocessors and memory bandwidth
// also while they wait for other ranks. Work is a flow over a link of its own, a whole of 1, which has less while there are any.
// Knows the engine; nothing of ops.
import type { Activity, Engine, Route } from "./engine/engine.ts"

export class SlowedCompute {
  readonly #engine: Engine
  readonly #link: number
  readonly #slowdown: number
  readonly #route: Route
  #underWay = 0

  /** `link`: of the engine, of 1 byte a second. */
  constructor(engine: Engine, link: number, slowdown: number) {
    this.#engine = engine
    this.#link = link
    this.#slowdown = slowdown
    this.#route = engine.route([link])
  }

  /** Work of so many seconds at full speed. */
  work(seconds: number): Activity {
    return this.#engine.flow(this.#route, seconds, 0)
  }

  /** One more collective of the rank, from when its turn has come until it has ended. */
  begin(): void {
    if (++this.#underWay === 1) this.#engine.setLink(this.#link, { bytesPerSecond: 1 / this.#slowdown })
  }

  end(): void {
    if (--this.#underWay === 0) this.#engine.setLink(this.#link, { bytesPerSecond: 1 })
  }

  /** That it has worked, up to now. */
  get busySeconds(): number {
    return this.#engine.linkBusySeconds(this.#link)
  }
}
