// What steps take that nobody times: on a GPU ops are timed by events, which cost every op microseconds and CUDA graphs, and what
// is predicted is predicted of runs without. By each rank's clock, where a program is let on because an earlier step has ended.
import * as Effect from "effect/Effect"
import { interposing } from "../../core/machine/interpose.ts"
import { defaultLookAhead, type MachineError, type Program } from "../../core/machine/machine.ts"
import { execute, type Execution } from "../../exec/execute.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"

/** The same program; when it was let on after each step, by the run's clock, is appended to `into`. */
export const letOn = <A>(program: Program<A>, into: Array<number>): Program<A> =>
  interposing(program, (machine) => ({
    endStep: Effect.andThen(
      machine.endStep,
      Effect.map(machine.now, (seconds) => void into.push(seconds))
    )
  }))

/**
 * Mean seconds of the `steps` steps after `warmupSteps`. A program is let on when the step `lookAhead` before has ended, so it has so
 * many steps more than are measured.
 */
export const meanStepSeconds = (
  letOnSeconds: ReadonlyArray<number>,
  warmupSteps: number,
  steps: number,
  lookAhead = defaultLookAhead
): number => {
  const endOf = (step: number): number => (step < 0 ? 0 : letOnSeconds[step + lookAhead]!)
  return (endOf(warmupSteps + steps - 1) - endOf(warmupSteps - 1)) / steps
}

/** The same of a run for real, of the rank that takes longest; every rank of the job asks. `programOf`: of so many steps. */
export const plainStepSeconds = (
  execution: Omit<Execution<unknown>, "program">,
  programOf: (steps: number) => Program<unknown>,
  job: ProcessJob,
  warmupSteps: number,
  steps: number
): Effect.Effect<number, MachineError> =>
  Effect.gen(function* () {
    const ends: Array<number> = []
    const program = letOn(programOf(warmupSteps + steps + defaultLookAhead), ends)
    yield* execute({ job: () => job.run(), ...execution, program })
    return Math.max(...(yield* job.exchange(meanStepSeconds(ends, warmupSteps, steps))))
  })
