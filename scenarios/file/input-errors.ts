// Everything that is wrong with one input, at once: a person mends a file in one go, not error by error.
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"

export class InputErrors extends Schema.TaggedError<InputErrors>()("InputErrors", {
  errors: Schema.NonEmptyArray(InputError)
}) {
  override get message(): string {
    return this.errors.map(({ message }) => message).join("\n")
  }
}

/** One error where several could have been. */
export const inputErrors = (...errors: [InputError, ...Array<InputError>]): InputErrors =>
  new InputErrors({ errors })

/** The same error, said of another file or with more about the place. */
export const relocated = ({ field, value, accepted }: InputError, file: string): InputError =>
  new InputError({ file, field, ...(value === undefined ? {} : { value }), accepted })
