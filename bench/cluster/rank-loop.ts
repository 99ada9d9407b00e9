// One rank of a bench over processes: joins the job, and runs what it is told on its standard input, a line of JSON for each run.
// Every rank answers with a line at the run's end, rank 0 also with one when the run's clock starts. Knows not what is run.
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import { CurrentBackend } from "../../exec/backend.ts"
import { perhapsInJob } from "../../exec/cli/job.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { optionsOf } from "../numbers.ts"

/** What a rank says: that the run's clock has started, or what the run came to. */
export type Said<A> = { readonly begun: true } | { readonly answer: A | { readonly error: string } }

const say = (said: Said<object>): void => void process.stdout.write(`${JSON.stringify(said)}\n`)

/**
 * Until its standard input ends. `bench`: who starts it. `run` calls `begun` when its clock starts; its failures are answers.
 * `--backend`, default cuda.
 */
export const serveRuns = async <R>(
  bench: string,
  run: (request: R, job: ProcessJob, begun: () => void) => Effect.Effect<object, { readonly message: string }>
): Promise<void> => {
  const { backend } = optionsOf({ options: { backend: { type: "string", default: "cuda" } } }).values
  const together = { ranks: Number(process.env["TANDEM_WORLD_SIZE"]), file: bench, plan: bench, files: [] }
  const serve = (job: ProcessJob | undefined) =>
    Effect.promise(async () => {
      if (job === undefined) throw new Error(`a rank of a job: ${bench} starts it`)
      const begun = (): void => {
        if (job.rank === 0) say({ begun: true })
      }
      for await (const line of createInterface({ input: process.stdin })) {
        const answer = await Effect.runPromise(
          Effect.provideService(run(JSON.parse(line) as R, job, begun), CurrentBackend, backend).pipe(
            Effect.catch((error) => Effect.succeed({ error: error.message })),
            Effect.catchDefect((defect) => Effect.succeed({ error: String(defect) }))
          )
        )
        say({ answer })
      }
    })
  const joined = perhapsInJob({ rendezvousTimeout: 60 }, together, serve)
  await Effect.runPromise(Effect.provideService(joined, CurrentBackend, backend))
}
