// A rank's compute lane that is slower while its collectives are under way: their kernels take multiprocessors and memory bandwidth
// also while they wait for other ranks. Work is a flow over a link of its own, a whole of 1, which has less while there are any.
// The rank's own speed, of a straggler or in a pause, is a factor of the same link. Knows the engine; nothing of ops.
import type { CollectiveOptions } from "../core/wire/legs.ts"
import type { Activity, Engine, Route, SpeedChange } from "./engine/engine.ts"

/** How many times as long kernels take beside a collective between nodes, and beside one inside a node. */
export interface Slowdowns {
  readonly between: number
  readonly inside: number
}

/** Undefined where no collective slows anything. */
export const slowdownsOf = ({
  slowdown = 1,
  slowdownInside = slowdown
}: CollectiveOptions): Slowdowns | undefined =>
  slowdown > 1 || slowdownInside > 1 ? { between: slowdown, inside: slowdownInside } : undefined

export class SlowedCompute {
  readonly #engine: Engine
  readonly #link: number
  readonly #slowdowns: Slowdowns
  readonly #route: Route
  readonly #underWay = { between: 0, inside: 0 }
  /** How busy it was when the first of those under way began. */
  readonly #busyBefore = { between: 0, inside: 0 }
  /** Whether kernels have run beside collectives, between nodes and inside one. */
  readonly ran = { between: false, inside: false }
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
    slowdowns: Slowdowns,
    speed: ReadonlyArray<SpeedChange>,
    at: (seconds: number, then: () => void) => void
  ) {
    this.#engine = engine
    this.#link = link
    this.#slowdowns = slowdowns
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
  begin(where: keyof Slowdowns): void {
    if (++this.#underWay[where] !== 1) return
    this.#busyBefore[where] = this.#engine.linkBusySeconds(this.#link)
    this.#set()
  }

  end(where: keyof Slowdowns): void {
    if (--this.#underWay[where] !== 0) return
    if (this.#engine.linkBusySeconds(this.#link) > this.#busyBefore[where]) this.ran[where] = true
    this.#set()
  }

  #changeSpeed(factor: number): void {
    const busy = this.#engine.linkBusySeconds(this.#link)
    if (this.#speed === 0) this.#stoodSeconds += busy - this.#busyWhenStopped
    if (factor === 0) this.#busyWhenStopped = busy
    this.#speed = factor
    this.#set()
  }

  #set(): void {
    const { between, inside } = this.#slowdowns
    // Beside several it is the slowest that any of them makes it.
    const slowdown = Math.max(
      this.#underWay.between > 0 ? between : 1,
      this.#underWay.inside > 0 ? inside : 1
    )
    this.#engine.setLink(this.#link, { bytesPerSecond: this.#speed / slowdown })
  }

  /** That it has worked, up to now; while the rank is away, work that it has begun stands. */
  get busySeconds(): number {
    const busy = this.#engine.linkBusySeconds(this.#link)
    return busy - this.#stoodSeconds - (this.#speed === 0 ? busy - this.#busyWhenStopped : 0)
  }
}
