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
  /** Steps, in whole periods, before those that nobody times: until all that comes again has come often enough to be a graph. */
  readonly settleSteps: number
  readonly ops?: boolean
}

/** How long a step took, and what its lanes did where a timed run tells. */
export type MeasuredSteps = Pick<ExecutedSteps, "stepSeconds"> & Partial<ExecutedSteps>

/** Of this rank: its steps, the first of them that count, and its ops (op-by-op.ts) where they were asked for. */
export type Told = MeasuredSteps & {
  readonly warmupSteps: number
  readonly ops?: ReadonlyArray<OpTimes>
}

export type Answer = MeasuredSteps | { readonly error: string }

const run = (
  { file, set, planFrom, emulateDevice, settleSteps, ops }: Request,
  job: ProcessJob,
  begun: () => void
) =>
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
    const plain = plainStepSeconds(
      { world, job: begins },
      (count) => planned.program(build, count),
      job,
      warmupSteps + settleSteps,
      steps - warmupSteps
    )
    // Where timing costs something, a step is as long as it is when nobody times it, and a timed run is for what lanes do alone.
    if (!emulateDevice && ops !== true) return { stepSeconds: yield* plain, warmupSteps } satisfies Told
    const { timeline } = yield* execute({
      world,
      job: emulateDevice ? begins : () => job.run(),
      program: planned.program(build, steps),
      record: true,
      ...(emulateDevice ? { prepare: onDevice(leastSecondsOn(yield* emulatedDevice(scenario, file))) } : {})
    })
    return {
      ...executedSteps(timeline!, warmupSteps, steps - warmupSteps),
      ...(emulateDevice ? {} : { stepSeconds: yield* plain }),
      warmupSteps,
      ...(ops === true ? { ops: opTimes(timeline!, job.rank) } : {})
    } satisfies Told
  })

await serveRuns("bench/cluster/what-if.ts", run)
