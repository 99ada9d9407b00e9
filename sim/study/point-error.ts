// A point of a study whose run came to no end: a deadlock, memory that does not suffice.
import * as Schema from "effect/Schema"

export class PointError extends Schema.TaggedError<PointError>()("PointError", {
  point: Schema.Int,
  /** Which error it was: "Deadlock", "OutOfMemory", ... */
  tag: Schema.String,
  /** Its message, and which point. */
  reason: Schema.String
}) {
  override get message(): string {
    return `point ${this.point}: ${this.reason}`
  }
}
