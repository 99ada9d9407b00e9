// What a scenario comes to with real kernels. What must be known of a rehearsal is known from a real one.
import * as Effect from "effect/Effect"
import type { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import { familyOf, type Scenario } from "../../scenarios/families.ts"
import type { Host } from "../../scenarios/family.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { execute } from "../execute.ts"
import { requireDevice, type NoDevice } from "./command.ts"

export const runnableOf = (
  scenario: Scenario,
  file: string,
  host: Host
): Effect.Effect<Runnable, InputError | NoDevice | MachineError> =>
  Effect.gen(function* () {
    const runnable = yield* familyOf(scenario).kernels(scenario, file, host)
    if (!("rehearsal" in runnable)) return runnable
    yield* requireDevice
    const { world, program, h2d, d2h, initial } = runnable.rehearsal
    const { ranks } = yield* execute({ world, program: program(), h2d, d2h, initial })
    return runnable.performance(ranks.map(({ value }) => value))
  })
