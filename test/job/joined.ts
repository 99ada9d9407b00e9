// What a process of a test's job does: it finds its place, joins, and says what it came to, or how it failed.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { placeIn, transportIn } from "../../exec/job/environment.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { secretIn } from "../../exec/job/secret.ts"

export const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

/** Runs `act` in the job that the environment tells of. */
export const joined = async (
  act: (job: ProcessJob) => Effect.Effect<unknown, Error>,
  more: { readonly lostAfterSeconds?: number; readonly host?: string } = {}
): Promise<void> => {
  const program = Effect.gen(function* () {
    const place = yield* placeIn(process.env)
    const secret = yield* secretIn(process.env)
    const transport = yield* transportIn(process.env)
    const options = { place: place!, secret, alike: { version: "1" }, transport, timeoutSeconds: 60 }
    return yield* ProcessJob.use({ ...options, ...more }, act)
  })
  const ending = new AbortController()
  process.once("SIGTERM", () => ending.abort())
  const exit = await Effect.runPromise(Effect.result(program), { signal: ending.signal }).catch((cause) => {
    if (!ending.signal.aborted) throw cause
    process.exit(143)
  })
  if (Result.isSuccess(exit)) say(exit.success)
  else {
    say({ failed: exit.failure, message: exit.failure.message })
    process.exitCode = 1
  }
}
