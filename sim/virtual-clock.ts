// Effect's clock on virtual time: `Effect.sleep` in a simulated program passes as its machine's `sleepUntil` does, and no host
// time is waited for or seen.
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Machine } from "../core/machine/machine.ts"

/** Puts into the context the clock of a rank's fibers; it starts at 0 with the run. `nowSeconds` is the virtual time. */
export const withVirtualClock =
  ({ sleepUntil }: Pick<Machine["Service"], "sleepUntil">, nowSeconds: () => number) =>
  <R>(context: Context.Context<R>): Context.Context<R> =>
    Context.add(context, Clock.Clock, clockOf(sleepUntil, nowSeconds))

const clockOf = (sleepUntil: Machine["Service"]["sleepUntil"], nowSeconds: () => number): Clock.Clock => {
  const nanoseconds = (): bigint => BigInt(Math.round(nowSeconds() * 1e9))
  return {
    currentTimeMillisUnsafe: () => nowSeconds() * 1000,
    currentTimeMillis: Effect.sync(() => nowSeconds() * 1000),
    currentTimeNanosUnsafe: nanoseconds,
    currentTimeNanos: Effect.sync(nanoseconds),
    monotonicTimeNanosUnsafe: nanoseconds,
    monotonicTimeNanos: Effect.sync(nanoseconds),
    // A sleep has no error of its own: where the run fails meanwhile, so does the fiber.
    sleep: (duration) =>
      Effect.orDie(Effect.suspend(() => sleepUntil(nowSeconds() + Duration.toSeconds(duration))))
  }
}
