// A thread that computes points of a study: takes them one by one from the thread that started it. Everything a point
// needs comes with it; profiles are read once per thread.
import * as Effect from "effect/Effect"
import { parentPort, workerData } from "node:worker_threads"
import { Loader } from "../../scenarios/load.ts"
import type { Search, StudyPoint } from "./definition.ts"
import { evaluatePoint } from "./evaluate.ts"
import type { StudyRow } from "./result.ts"

export interface WorkerStart {
  readonly file: string
  readonly search: Search | undefined
}

export type WorkerAnswer = { readonly rows: ReadonlyArray<StudyRow> } | { readonly defect: string }

const answer = async (point: StudyPoint, start: WorkerStart, loader: Loader): Promise<WorkerAnswer> => {
  try {
    return { rows: await Effect.runPromise(evaluatePoint(point, { ...start, loader })) }
  } catch (defect) {
    return { defect: defect instanceof Error ? (defect.stack ?? defect.message) : String(defect) }
  }
}

if (parentPort !== null) {
  const port = parentPort
  const start = workerData as WorkerStart
  const loader = new Loader()
  port.on("message", (point: StudyPoint) => {
    void answer(point, start, loader).then((reply) => {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      port.postMessage(reply)
    })
  })
}
