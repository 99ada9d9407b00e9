// For each task, the program of a scenario with real kernels, as both machines run it.
import * as Effect from "effect/Effect"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import type { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../core/scenario.ts"
import type { Loader } from "../../sim/load.ts"
import type { BothOptions } from "./both-machines.ts"
import { dataParallelOnly } from "./command.ts"
import { prepareTraining } from "./prepare.ts"

/** What a scenario comes to on both machines. `file` is its path: files it names are relative to its folder. */
export const programOf = (
  scenario: Scenario,
  file: string,
  loader: Loader
): Effect.Effect<BothOptions<unknown>, InputError> =>
  Effect.gen(function* () {
    const training = yield* dataParallelOnly(scenario, file)
    const { world, planned, build, steps } = yield* prepareTraining(training, file, loader)
    return {
      world,
      // Each step's loss is read: a value that both machines must agree on, and a wait that both must keep.
      program: () =>
        observed(build, (model) => planned.program(model, steps), { everySteps: 1, onLoss: () => undefined }),
      collectives: training.collectives.algorithm,
      network: training.network,
      capacityBytes: training.memory
    }
  })
