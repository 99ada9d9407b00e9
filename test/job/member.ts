// One process of a job, for processes.test.ts: what it does is its argument; what it comes to is a line on standard output.
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { placeIn } from "../../exec/job/environment.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { secretIn } from "../../exec/job/secret.ts"

const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

const acts: Record<string, (job: ProcessJob) => Effect.Effect<unknown, Error>> = {
  exchange: (job) =>
    Effect.gen(function* () {
      const squares = yield* job.exchange(job.rank * job.rank)
      const all = yield* job.gather({ rank: job.rank, values: new Float64Array([job.rank, 0.5]) })
      const offset = yield* job.clockOffset
      yield* job.barrier
      return { squares, gathered: all?.map(({ values }) => [...values]), offset }
    }),
  // Computes without a pause, so that its JavaScript hears of nothing, while its native threads must.
  busy: (job) =>
    Effect.gen(function* () {
      yield* job.barrier
      const until = performance.now() + 9000
      while (performance.now() < until && job.mesh.fault === undefined);
      yield* job.barrier
      return "alive"
    }),
  wait: (job) =>
    Effect.andThen(
      job.barrier,
      Effect.andThen(
        Effect.sync(() => say("begun")),
        waiting(job)
      )
    ),
  leave: (job) =>
    Effect.gen(function* () {
      yield* job.barrier
      if (job.rank === 1) return "left"
      yield* Effect.promise(() => sleep(1500))
      return job.mesh.fault ?? "no fault"
    })
}

/** All wait for rank 1, which never comes. */
const waiting = (job: ProcessJob): Effect.Effect<unknown, Error> =>
  job.rank === 1 ? Effect.promise(() => sleep(60_000)) : job.barrier

const program = Effect.gen(function* () {
  const place = yield* placeIn(process.env)
  const secret = yield* secretIn(process.env)
  return yield* ProcessJob.use(
    { place: place!, secret, alike: { version: "1" }, timeoutSeconds: 30, lostAfterSeconds: 3 },
    acts[process.argv[2]!]!
  )
})

const exit = await Effect.runPromise(Effect.result(program))
if (Result.isSuccess(exit)) say(exit.success)
else {
  say({ failed: exit.failure })
  process.exitCode = 1
}
