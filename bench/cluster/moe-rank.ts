// One rank of bench/cluster/moe.ts: MoE training, as it is told (rank-loop.ts). Started by a launcher's variables.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=4 ... node bench/cluster/moe-rank.ts --backend cuda
import * as Effect from "effect/Effect"
import { emulatedDevice, leastSecondsOn, onDevice } from "../../exec/cli/emulated-device.ts"
import { runnableOf } from "../../exec/cli/runnable.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { recordRun } from "../../exec/record-run.ts"
import { warmupSteps } from "../../scenarios/families/moe-training/simulated.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { plainStepSeconds } from "./plain-steps.ts"
import { serveRuns } from "./rank-loop.ts"
import { stepParts } from "./step-parts.ts"

export interface Request {
  readonly file: string
  readonly set: ReadonlyArray<string>
  /** Kernels take at least what the scenario's device needs. */
  readonly emulateDevice: boolean
}

const run = ({ file, set, emulateDevice }: Request, job: ProcessJob) =>
  Effect.gen(function* () {
    const { scenario } = yield* loadLocatedScenario(file, set)
    if (scenario.task !== "moe-training") throw new Error(`${file}: a scenario of MoE training`)
    const { world, program, upTo, capacityBytes } = yield* runnableOf(scenario, file, {
      loader: new Loader()
    })
    const device = emulateDevice
      ? { prepare: onDevice(leastSecondsOn(yield* emulatedDevice(scenario, file))) }
      : {}
    const { record } = yield* recordRun({ world, program: program(), capacityBytes, ...device }, job, {
      values: false
    })
    const timed = stepParts(record.timeline, warmupSteps, scenario.steps)
    if (emulateDevice || upTo === undefined) return timed
    const execution = { world, capacityBytes }
    // What lanes do is known of a run that is timed, how long steps are of one that is not.
    const stepSeconds = yield* plainStepSeconds(execution, upTo, job, warmupSteps, scenario.steps)
    return { ...timed, stepSeconds }
  })

await serveRuns("bench/cluster/moe.ts", run)
