// Work that goes point by point lets signals and timers in between: a study may have a million points.
import * as Effect from "effect/Effect"

export const eventLoopTurn: Effect.Effect<void> = Effect.callback((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/** Points between two turns where each takes a fraction of a millisecond. */
export const pointsBetweenTurns = 256
