// One scenario, from its settings to its result, whatever its task.
import type * as Effect from "effect/Effect"
import type { InputError } from "../core/input-error.ts"
import type { MachineError } from "../core/machine/machine.ts"
import type { Scenario } from "../core/scenario.ts"
import { familyOf } from "./families.ts"
import type { FamilyRun, RunOptions } from "./family.ts"

/** Simulates a scenario. `file` is the scenario's path: files it names are relative to its folder. */
export const runScenario = (
  scenario: Scenario,
  file: string,
  options: RunOptions
): Effect.Effect<FamilyRun, InputError | MachineError> => familyOf(scenario).run(scenario, file, options)
