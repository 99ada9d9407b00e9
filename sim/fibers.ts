// Runs Effect fibers as part of one synchronous loop: no microtask or timer comes in between, so that a run repeats
// exactly. Knows nothing of events or virtual time; the loop that owns it does.
import type * as Scheduler from "effect/Scheduler"

/** A first-in first-out run queue that its owner drains. */
export class FiberQueue implements Scheduler.Scheduler {
  readonly executionMode = "sync" as const
  #tasks: Array<(() => void) | undefined> = []
  #head = 0

  // One dispatcher for all fibers: a single global order.
  readonly #dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => {
      this.#tasks.push(task)
    },
    flush: () => this.drain()
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return this.#dispatcher
  }

  /** Fibers run until they suspend. */
  shouldYield(): boolean {
    return false
  }

  /** Is nothing runnable? */
  get idle(): boolean {
    return this.#tasks.length === 0
  }

  /** Runs everything runnable, including what becomes runnable meanwhile. */
  drain(): void {
    while (this.#head < this.#tasks.length) {
      const task = this.#tasks[this.#head]!
      this.#tasks[this.#head++] = undefined
      task()
    }
    this.#tasks.length = 0
    this.#head = 0
  }
}
