// One scenario, from its settings to its result, whatever its task.
import type * as Effect from "effect/Effect"
import type { InputError } from "../core/input-error.ts"
import type { MachineError } from "../core/machine/machine.ts"
import type { Timeline } from "../core/machine/timeline.ts"
import type { Told } from "../scenarios/family.ts"
import type { Loader } from "../scenarios/load.ts"
import type { RunResult } from "../scenarios/result.ts"
import type { Scenario, Task } from "../scenarios/scenario.ts"
import { runDataParallel } from "./families/data-parallel/run.ts"
import { runExpertOffload } from "./families/expert-offload/run.ts"
import { runKvServing } from "./families/kv-serving/run.ts"
import { explainMoeTraining, runMoeTraining } from "./families/moe-training/run.ts"
import type { SimulationResult } from "./simulate.ts"

export interface RunOptions {
  readonly loader: Loader
  /** Keep the timeline and op logs. */
  readonly record?: boolean
}

export interface FamilyRun {
  readonly result: RunResult
  readonly timeline: Timeline | undefined
  /** The stretch of the timeline that the metrics are of. */
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly simulated: SimulationResult<unknown>
}

/** Methods, not properties: that of one task stands where any is wanted, and is asked of its own task only. */
interface Simulated<S extends Scenario = Scenario> {
  run(scenario: S, file: string, options: RunOptions): Effect.Effect<FamilyRun, InputError | MachineError>
  /** Why the run took as long as it did, beyond what a timeline shows. */
  explain?(scenario: S, run: FamilyRun): Told
}

const simulated: Readonly<Record<Task, Simulated>> = {
  "data-parallel": { run: runDataParallel },
  "kv-serving": { run: runKvServing },
  "expert-offload": { run: runExpertOffload },
  "moe-training": { run: runMoeTraining, explain: explainMoeTraining }
}

const simulatedOf = ({ task }: Scenario): Simulated => simulated[task]

/** Simulates a scenario. `file` is the scenario's path: files it names are relative to its folder. */
export const runScenario = (
  scenario: Scenario,
  file: string,
  options: RunOptions
): Effect.Effect<FamilyRun, InputError | MachineError> => simulatedOf(scenario).run(scenario, file, options)

/** Why the run took as long as it did, beyond what a timeline shows; where the family knows more. */
export const explainRun = (scenario: Scenario, run: FamilyRun): Told | undefined =>
  simulatedOf(scenario).explain?.(scenario, run)
