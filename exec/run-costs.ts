// What a profile has of a run that was timed and run plain: ops as they are when nobody times them, and the host of a program that
// reads. Everything that is to predict real runs takes its costs from here.
import * as Effect from "effect/Effect"
import type { MeasuredHost } from "../core/cost/host.ts"
import type { MachineError } from "../core/machine/machine.ts"
import type { OpCost } from "../core/profile.ts"
import { hostOfRun } from "./bench.ts"
import { forBenchmark, recordedOps, type Reckoning } from "./recorded.ts"
import type { RunRecord } from "./record-run.ts"
import { costOfRecording, type Recording } from "./recording-cost.ts"
import type { TimedAndPlain } from "./timed-and-plain.ts"

interface RunCosts {
  readonly ops: ReadonlyArray<OpCost>
  readonly host: MeasuredHost | undefined
  /** Where timing ops costs something, and both runs have stretches in common. */
  readonly recording: Recording | undefined
}

interface Options {
  readonly reckoning?: Reckoning
  /** The run without steps that are not to count. */
  readonly kept?: RunRecord
  /** Whose host is nobody's, as of an emulated device, has none. */
  readonly hosted?: boolean
}

export const costsOfRun = (
  { record, both }: Pick<TimedAndPlain, "record" | "both">,
  { reckoning = forBenchmark, kept = record, hosted = true }: Options = {}
): Effect.Effect<RunCosts, MachineError> =>
  Effect.gen(function* () {
    const timed = hosted ? yield* hostOfRun(record) : undefined
    const recording =
      both === undefined ? undefined : costOfRecording(record, reckoning.of, 0, both.timed, both.plain, timed)
    return {
      ops: recordedOps(kept, reckoning, recording?.takes),
      host: timed === undefined ? undefined : { ...timed, ...recording?.host },
      recording
    }
  })
