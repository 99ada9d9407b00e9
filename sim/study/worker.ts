// A thread that computes points of a study: takes them one by one from the thread that started it. Everything a point
// needs comes with it; profiles are read once per thread.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { parentPort, workerData } from "node:worker_threads"
import { InputError } from "../../core/input-error.ts"
import { Loader } from "../../scenarios/load.ts"
import type { Search, StudyPoint } from "./definition.ts"
import { evaluatePoint } from "./evaluate.ts"
import type { StudyRow } from "./result.ts"

export interface WorkerStart {
  readonly file: string
  readonly search: Search | undefined
}

/** Errors lose their class on the way between threads. */
export interface SentError {
  readonly tag: string
  readonly message: string
  readonly input?: {
    readonly file: string
    readonly field: string
    readonly value: string | undefined
    readonly accepted: string
  }
}

export type WorkerAnswer =
  { readonly rows: ReadonlyArray<StudyRow> } | { readonly error: SentError } | { readonly defect: string }

const answer = async (point: StudyPoint, start: WorkerStart, loader: Loader): Promise<WorkerAnswer> => {
  try {
    const result = await Effect.runPromise(Effect.result(evaluatePoint(point, { ...start, loader })))
    if (Result.isSuccess(result)) return { rows: result.success }
    const error = result.failure
    const { message } = error
    if (!(error instanceof InputError)) return { error: { tag: error.name, message } }
    const { file, field, value, accepted } = error
    return { error: { tag: error.name, message, input: { file, field, value, accepted } } }
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
