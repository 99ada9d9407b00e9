// How far a simulation is, for whoever waits: on a terminal by a bar, elsewhere by a line where it takes long.
import * as Effect from "effect/Effect"
import { writeError } from "../../scenarios/cli/output.ts"
import { patientProgress } from "../../scenarios/cli/progress.ts"
import type { RunOptions } from "../run.ts"

/** Runs `use` with what tells of its steps. */
export const simulating = <A, E>(
  use: (onSteps: NonNullable<RunOptions["onSteps"]>) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const progress = patientProgress("simulating steps", (line) =>
      writeError(`sim: ${line}; fewer steps are simulated sooner\n`)
    )
    return Effect.ensuring(
      use((ended, of) => progress.update(ended, of)),
      Effect.sync(progress.end)
    )
  })
