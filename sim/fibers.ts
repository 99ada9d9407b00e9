// Runs Effect fibers as part of one synchronous loop: no microtask or timer comes in between, so that a run repeats
// exactly. Knows nothing of events or virtual time; the loop that owns it does.
import type * as Scheduler from "effect/Scheduler"

/** Which of so many runnable tasks is next, counted in the order they became runnable. */
export type Pick = (runnable: number) => number

/** A run queue that its owner drains: first in first out, or as `pick` says. */
export class FiberQueue implements Scheduler.Scheduler {
  readonly executionMode = "sync" as const
  readonly #pick: Pick | undefined
  #tasks: Array<(() => void) | undefined> = []
  #head = 0

  // One dispatcher for all fibers: a single global order.
  readonly #dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => this.add(task),
    flush: () => this.drain()
  }

  constructor(pick?: Pick) {
    this.#pick = pick
  }

  add(task: () => void): void {
    this.#tasks.push(task)
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
      if (this.#pick !== undefined) this.#choose(this.#pick)
      const task = this.#tasks[this.#head]!
      this.#tasks[this.#head++] = undefined
      task()
    }
    this.#tasks.length = 0
    this.#head = 0
  }

  /** Moves the task picked to the head; the others keep their order. */
  #choose(pick: Pick): void {
    const runnable = this.#tasks.length - this.#head
    if (runnable < 2) return
    const [task] = this.#tasks.splice(this.#head + (pick(runnable) % runnable), 1)
    this.#tasks.splice(this.#head, 0, task)
  }
}
