// The families of algorithms, by task.
import type { Scenario, Task } from "./scenario.ts"
import { dataParallel } from "./families/data-parallel/family.ts"
import { kvServing } from "./families/kv-serving/family.ts"
import { expertOffload } from "./families/expert-offload/family.ts"
import { moeTrainingFamily } from "./families/moe-training/family.ts"
import type { Family } from "./family.ts"
import type { RunResult } from "./result.ts"

export const families: Readonly<Record<Task, Family>> = {
  "data-parallel": dataParallel,
  "kv-serving": kvServing,
  "expert-offload": expertOffload,
  "moe-training": moeTrainingFamily
}

export const familyOf = ({ task }: { readonly task: Task }): Family => families[task]

/** The result with the warnings about its scenario's fields among its own. */
export const withIgnoredFields = (result: RunResult, scenario: Scenario): RunResult => {
  const warnings = [...new Set([...result.warnings, ...familyOf(scenario).ignored(scenario, result)])]
  return { ...result, warnings }
}
