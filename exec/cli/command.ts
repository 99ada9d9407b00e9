// What the commands of `exec` share: their end, a scenario of a task they can run, and a machine to run it on.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { execute, type Outcome } from "../../scenarios/cli/execute.ts"
import { nativeInfo } from "../native.ts"

/** The native addon is missing: reason and remedy. */
export class NoDevice extends Schema.TaggedError<NoDevice>()("NoDevice", { missing: Schema.String }) {
  override get message(): string {
    return this.missing
  }
}

/** Runs a command to its exit code. */
export const runCommand = (command: Effect.Effect<Outcome, Error>): Promise<number> =>
  execute(command, "exec")

/** Fails where nothing can be run. */
export const requireDevice: Effect.Effect<void, NoDevice> = Effect.suspend(() => {
  const info = nativeInfo()
  return "missing" in info ? new NoDevice({ missing: info.missing }) : Effect.void
})

/** The scenario, if it is one of data-parallel training. */
export const dataParallelOnly = (
  scenario: Scenario,
  file: string
): Effect.Effect<DataParallelScenario, InputError> =>
  scenario.task === "data-parallel"
    ? Effect.succeed(scenario)
    : Effect.fail(
        new InputError({
          file,
          field: "task",
          value: (scenario as { readonly task: string }).task,
          accepted: "data-parallel"
        })
      )
