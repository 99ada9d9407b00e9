// The one error for input that a person gave and can mend: which file, which field, what it says, what would do.
import * as Schema from "effect/Schema"

/** Bad input, in the words of the person who gave it: where, what was found, and what would be accepted. */
export class InputError extends Schema.TaggedError<InputError>()("InputError", {
  /** The file as the person named it, or the command-line option. */
  file: Schema.String,
  /** Path of the field, "world.links.inter.bandwidth"; empty for the file as a whole. */
  field: Schema.String,
  /** What was found, as text; undefined when something is missing. */
  value: Schema.optionalKey(Schema.String),
  /** What would be accepted, or what to do about it. */
  accepted: Schema.String
}) {
  override get message(): string {
    const where = this.field === "" ? this.file : `${this.file}: ${this.field}`
    return this.value === undefined
      ? `${where}: expected ${this.accepted}`
      : `${where}: ${this.value} is not accepted; expected ${this.accepted}`
  }
}
