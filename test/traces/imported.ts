// What tests of importers share: made-up files, and what a refusal says.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { fileURLToPath } from "node:url"
import type { TraceError } from "../../traces/trace-error.ts"

/** The path of a made-up file. */
export const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/import/${name}`, import.meta.url))

/** Why a file is refused; fails where it is not. */
export const refusal = async <A>(effect: Effect.Effect<A, TraceError>): Promise<TraceError> => {
  const result = await Effect.runPromise(Effect.result(effect))
  if (!Result.isFailure(result)) throw new Error("imported without an error")
  return result.failure
}
