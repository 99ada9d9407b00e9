// What the commands of `exec` share: their end, and a machine to run on.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
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
