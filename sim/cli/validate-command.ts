// sim validate: published tables and measurements, number by number.
import * as Effect from "effect/Effect"
import { validate } from "../validate/validate.ts"
import { execute, json } from "../../scenarios/cli/execute.ts"
import { terminalProgress } from "../../scenarios/cli/progress.ts"

export interface ValidateCommandOptions {
  readonly json?: boolean
}

export const validateCommand = (
  names: ReadonlyArray<string>,
  options: ValidateCommandOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const progress = terminalProgress("validating")
      const validation = yield* validate(names, { onProgress: progress.update }).pipe(
        Effect.ensuring(Effect.sync(progress.end))
      )
      return {
        text: options.json === true ? json(validation.json) : `${validation.text.trimEnd()}\n`,
        ok: validation.ok
      }
    })
  )
