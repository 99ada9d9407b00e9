// The families of algorithms: the one list of tasks that a scenario can be of, and what follows from it.
import type * as Schema from "effect/Schema"
import type { AnyScenario, Family } from "./family.ts"
import { dataParallel } from "./families/data-parallel/family.ts"
import { expertOffload } from "./families/expert-offload/family.ts"
import { kvServing } from "./families/kv-serving/family.ts"
import { moeTrainingFamily } from "./families/moe-training/family.ts"
import type { RunResult } from "./result.ts"

/** Every family, the usual one first. */
export const families = [dataParallel, moeTrainingFamily, expertOffload, kvServing] as const

/** A scenario of any task. */
export type Scenario = (typeof families)[number]["schema"]["Type"]
/** What a scenario's `task` may be. */
export type Task = Scenario["task"]

/** That of a scenario which names none. */
export const defaultTask: Task = dataParallel.task

/** Tasks of all families, in their order. */
export const tasks: ReadonlyArray<Task> = families.map(({ task }) => task)

const byTask = new Map<string, Family>(families.map((one) => [one.task, one]))

/** Whether a text names a task. */
export const isTask = (name: string): name is Task => byTask.has(name)

/** The family of the task; throws RangeError where there is none of that name. */
export const familyOf = ({ task }: { readonly task: string }): Family => {
  const found = byTask.get(task)
  if (found === undefined) throw new RangeError(`no task ${task}; there are ${tasks.join(", ")}`)
  return found
}

/** The schema of the task's scenarios. */
export const schemaOf = (task: Task): Schema.Constraint & Schema.Decoder<Scenario> =>
  familyOf({ task }).schema as unknown as Schema.Decoder<Scenario>

/** The result with the warnings about its scenario's fields among its own. */
export const withIgnoredFields = (result: RunResult, scenario: AnyScenario): RunResult => {
  const warnings = [...new Set([...result.warnings, ...familyOf(scenario).ignored(scenario, result)])]
  return { ...result, warnings }
}
