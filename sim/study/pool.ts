// Worker threads that share the points of a study. Which thread computes a point never shows in its rows.
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"
import { InputError } from "../../core/input-error.ts"
import type { StudyPoint } from "./definition.ts"
import { failedRow } from "./failure.ts"
import type { StudyRow } from "./result.ts"
import { StudyThread } from "./thread.ts"
import type { WorkerStart } from "./worker.ts"

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
    Effect.sync(() => new StudyThread(new Worker(workerFile, { workerData: start }))),
    (worker) =>
      Effect.gen(function* () {
        while (next < points.length) {
          // One that ended without a point under way takes none with it.
          if (yield* worker.isFull) return
          const point = points[next++]!
          const rows = yield* worker.ask(point)
          yield* finished(rows ?? [failedRow(point, outgrown)])
          if (rows === undefined) return
        }
      }),
    (worker) => worker.end
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
