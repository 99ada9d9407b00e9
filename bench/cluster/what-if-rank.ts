// One rank of bench/cluster/what-if.ts: joins the job, and runs what it is told on its standard input, a line of JSON for each
// run. Every rank answers with a line at its end, rank 0 also with one when the run's clock starts. Started by a launcher's variables.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=2 ... node bench/cluster/what-if-rank.ts --backend cuda
import { createInterface } from "node:readline"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { CurrentBackend } from "../../exec/backend.ts"
import { emulatedDevice, leastSecondsOn, onDevice } from "../../exec/cli/emulated-device.ts"
import { perhapsInJob } from "../../exec/cli/job.ts"
import { execute } from "../../exec/execute.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { executedSteps, type ExecutedSteps } from "./measured-steps.ts"

export interface Request {
  readonly file: string
  readonly set: ReadonlyArray<string>
  readonly planFrom: string
  /** Kernels take at least what the scenario's device needs. */
  readonly emulateDevice: boolean
}

export type Answer = ExecutedSteps | { readonly error: string }

/** What a rank says: that the run's clock has started, or what the run came to. */
export type Said = { readonly begun: true } | { readonly answer: Answer }

const say = (said: Said): void => void process.stdout.write(`${JSON.stringify(said)}\n`)

const run = ({ file, set, planFrom, emulateDevice }: Request, job: ProcessJob) =>
  Effect.gen(function* () {
    const { scenario } = yield* loadLocatedScenario(file, set)
    if (scenario.task !== "data-parallel") throw new Error(`${file}: a scenario of data-parallel training`)
    const prepared = yield* prepareTraining(scenario, file, new Loader(), { planFrom })
    const { world, planned, build, steps } = prepared
    const { timeline } = yield* execute({
      world,
      job: () => {
        const own = job.run()
        own.gate.whenOpen(() => {
          if (job.rank === 0) say({ begun: true })
        })
        return own
      },
      program: planned.program(build, steps),
      record: true,
      ...(emulateDevice ? { prepare: onDevice(leastSecondsOn(yield* emulatedDevice(scenario, file))) } : {})
    })
    return executedSteps(timeline!, planned.warmupSteps, steps - planned.warmupSteps)
  })

const { values } = parseArgs({ options: { backend: { type: "string", default: "cuda" } } })
const together = {
  ranks: Number(process.env["TANDEM_WORLD_SIZE"]),
  file: "what if",
  plan: "what if",
  files: []
}
await Effect.runPromise(
  Effect.provideService(
    perhapsInJob({ rendezvousTimeout: 60 }, together, (job) =>
      Effect.promise(async () => {
        if (job === undefined) throw new Error("a rank of a job: bench/cluster/what-if.ts starts it")
        for await (const line of createInterface({ input: process.stdin })) {
          const ran = run(JSON.parse(line) as Request, job)
          const answer = await Effect.runPromise(
            Effect.provideService(ran, CurrentBackend, values.backend).pipe(
              Effect.catch((error) => Effect.succeed({ error: error.message })),
              Effect.catchDefect((defect) => Effect.succeed({ error: String(defect) }))
            )
          )
          say({ answer })
        }
      })
    ),
    CurrentBackend,
    values.backend
  )
)
