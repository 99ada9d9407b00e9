// One rank of bench/cluster/what-if.ts: data-parallel training, as it is told (rank-loop.ts). Started by a launcher's variables.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=2 ... node bench/cluster/what-if-rank.ts --backend cuda
import * as Effect from "effect/Effect"
import { emulatedDevice, leastSecondsOn, onDevice } from "../../exec/cli/emulated-device.ts"
import { execute } from "../../exec/execute.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { executedSteps, type ExecutedSteps } from "./measured-steps.ts"
import { plainStepSeconds } from "./plain-steps.ts"
import { opTimes, type OpTimes } from "./op-by-op.ts"
import { serveRuns } from "./rank-loop.ts"

export interface Request {
  readonly file: string
  readonly set: ReadonlyArray<string>
  readonly planFrom: string
  /** Kernels take at least what the scenario's device needs. */
  readonly emulateDevice: boolean
  readonly ops?: boolean
}

/** Of this rank: its steps, the first of them that count, and its ops (op-by-op.ts) where they were asked for. */
export interface Told extends ExecutedSteps {
  readonly warmupSteps: number
  readonly ops?: ReadonlyArray<OpTimes>
}

export type Answer = ExecutedSteps | { readonly error: string }

const run = ({ file, set, planFrom, emulateDevice, ops }: Request, job: ProcessJob, begun: () => void) =>
  Effect.gen(function* () {
    const { scenario } = yield* loadLocatedScenario(file, set)
    if (scenario.task !== "data-parallel") throw new Error(`${file}: a scenario of data-parallel training`)
    const prepared = yield* prepareTraining(scenario, file, new Loader(), { planFrom })
    const { world, planned, build, steps } = prepared
    const { warmupSteps } = planned
    const begins = () => {
      const own = job.run()
      own.gate.whenOpen(begun)
      return own
    }
    const { timeline } = yield* execute({
      world,
      job: emulateDevice ? begins : () => job.run(),
      program: planned.program(build, steps),
      record: true,
      ...(emulateDevice ? { prepare: onDevice(leastSecondsOn(yield* emulatedDevice(scenario, file))) } : {})
    })
    const timed = executedSteps(timeline!, warmupSteps, steps - warmupSteps)
    // What lanes do is known of a run that is timed; how long steps are, where timing costs something, of one that is not.
    const plain = emulateDevice
      ? {}
      : {
          stepSeconds: yield* plainStepSeconds(
            { world, job: begins },
            (count) => planned.program(build, count),
            job,
            warmupSteps,
            steps - warmupSteps
          )
        }
    return {
      ...timed,
      ...plain,
      warmupSteps,
      ...(ops === true ? { ops: opTimes(timeline!, job.rank) } : {})
    } satisfies Told
  })

await serveRuns("bench/cluster/what-if.ts", run)
