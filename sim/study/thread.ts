// A worker thread that is asked for one point of a study after another, and may end at any moment, between two of them too.
import * as Effect from "effect/Effect"
import type { Worker } from "node:worker_threads"
import type { StudyPoint } from "./definition.ts"
import type { StudyRow } from "./result.ts"
import type { WorkerAnswer } from "./worker.ts"

/** How a thread ended: it took all the memory that it may have, or by a defect. */
type End = { readonly full: true } | { readonly full: false; readonly defect: Error }

/** Hears of the thread's end from the beginning on: an error that nobody listens for ends the process. */
export class StudyThread {
  readonly #worker: Worker
  #ended: End | undefined
  #onEnd: ((end: End) => void) | undefined

  constructor(worker: Worker) {
    this.#worker = worker
    worker.on("error", (error) => {
      const full = "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY"
      this.#endedBy(full ? { full } : { full, defect: error })
    })
    worker.on("exit", (code) => {
      this.#endedBy({ full: false, defect: new Error(`a thread of the study ended with exit code ${code}`) })
    })
  }

  /** Whether it took all its memory without a point under way. Dies of any other end. */
  get isFull(): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      if (this.#ended === undefined) return Effect.succeed(false)
      return this.#ended.full ? Effect.succeed(true) : Effect.die(this.#ended.defect)
    })
  }

  /** Its rows; undefined where the point took all the memory that the thread may have. */
  ask(point: StudyPoint): Effect.Effect<ReadonlyArray<StudyRow> | undefined> {
    return Effect.callback((resume) => {
      const stop = (): void => {
        this.#worker.off("message", onMessage)
        this.#onEnd = undefined
      }
      const onMessage = (answer: WorkerAnswer): void => {
        stop()
        resume("rows" in answer ? Effect.succeed(answer.rows) : Effect.die(new Error(answer.defect)))
      }
      const onEnd = (end: End): void => {
        stop()
        resume(end.full ? Effect.succeed(undefined) : Effect.die(end.defect))
      }
      if (this.#ended !== undefined) return onEnd(this.#ended)
      this.#onEnd = onEnd
      this.#worker.once("message", onMessage)
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      this.#worker.postMessage(point)
      return Effect.sync(stop)
    })
  }

  /** Ends it, whatever it does. */
  get end(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      void this.#worker.terminate().then(() => resume(Effect.void))
    })
  }

  #endedBy(end: End): void {
    if (this.#ended !== undefined) return
    this.#ended = end
    this.#onEnd?.(end)
  }
}
