// Worker threads that share the points of a study. Which thread computes a point never shows in its rows.
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"
import { InputError } from "../../core/input-error.ts"
import type { StudyPoint } from "./definition.ts"
import { failedRow } from "./failure.ts"
import type { StudyRow } from "./result.ts"
import type { WorkerAnswer, WorkerStart } from "./worker.ts"

/** Beside this module, with the same ending: sources run as they are, the package as emitted JavaScript. */
const workerFile = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url)

/**
 * Computes `points` on `threads` threads and hands each one's rows to `finished` as it ends. A defect stops the rest; threads are gone when this ends, however it ends.
 */
export const computeOnThreads = <E, R>(
  points: ReadonlyArray<StudyPoint>,
  threads: number,
  start: WorkerStart,
  finished: (rows: ReadonlyArray<StudyRow>) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, R> => {
  let next = 0
  /** Computes points until there are none, or one takes all the memory that a thread may have: that ends the thread. */
  const thread = Effect.acquireUseRelease(
    Effect.sync(() => new Worker(workerFile, { workerData: start })),
    (worker) =>
      Effect.gen(function* () {
        while (next < points.length) {
          const point = points[next++]!
          const rows = yield* ask(worker, point)
          yield* finished(rows ?? [failedRow(point, outgrown)])
          if (rows === undefined) return
        }
      }),
    (worker) =>
      Effect.callback<void>((resume) => {
        void worker.terminate().then(() => resume(Effect.void))
      })
  )
  const threadAfterThread = Effect.gen(function* () {
    while (next < points.length) yield* thread
  })
  const count = Math.min(threads, points.length)
  return Effect.forEach(Array.from({ length: count }), () => threadAfterThread, {
    concurrency: "unbounded",
    discard: true
  })
}

const outgrown = new InputError({
  file: "this point",
  field: "",
  value: "a scenario that needs more memory than a thread may have",
  accepted: "fewer ranks, layers or requests, or NODE_OPTIONS=--max-old-space-size=MEGABYTES"
})

/** Undefined where the point took all the memory that the thread may have. */
const ask = (worker: Worker, point: StudyPoint): Effect.Effect<ReadonlyArray<StudyRow> | undefined> =>
  Effect.callback((resume) => {
    const onMessage = (answer: WorkerAnswer): void => {
      worker.off("error", onError)
      resume("rows" in answer ? Effect.succeed(answer.rows) : Effect.die(new Error(answer.defect)))
    }
    const onError = (error: Error): void => {
      worker.off("message", onMessage)
      const isFull = "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY"
      resume(isFull ? Effect.succeed(undefined) : Effect.die(error))
    }
    worker.once("message", onMessage)
    worker.once("error", onError)
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(point)
    return Effect.sync(() => {
      worker.off("message", onMessage)
      worker.off("error", onError)
    })
  })
