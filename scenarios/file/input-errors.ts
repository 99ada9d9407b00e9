// Everything that is wrong with one input, at once: a person mends a file in one go, not error by error.
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"

/** A person mends the first few; those that follow from them are gone then. */
const mostShown = 20
const longestShown = 2000

/** A value may be a whole file. */
const clipped = (message: string): string =>
  message.length <= longestShown
    ? message
    : `${message.slice(0, longestShown / 2)} … ${message.slice(-longestShown / 2)}`

/** All that is wrong with a file, at least one thing. */
export class InputErrors extends Schema.TaggedError<InputErrors>()("InputErrors", {
  errors: Schema.NonEmptyArray(InputError)
}) {
  override get message(): string {
    const shown = this.errors.slice(0, mostShown).map(({ message }) => clipped(message))
    const left = this.errors.length - shown.length
    return [...shown, ...(left === 0 ? [] : [`and ${left} more errors`])].join("\n")
  }
}

/** One error where several could have been. */
export const inputErrors = (...errors: [InputError, ...Array<InputError>]): InputErrors =>
  new InputErrors({ errors })

/** The same error, said of another file or with more about the place. */
export const relocated = ({ field, value, accepted }: InputError, file: string): InputError =>
  new InputError({ file, field, ...(value === undefined ? {} : { value }), accepted })
