// What a file is, to the bit.
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import * as Effect from "effect/Effect"
import { reasonOf } from "../../file/source.ts"
import { InputError } from "../../../core/input-error.ts"

/** Length and SHA-256 (hexadecimal digits) of a file. Fails where it cannot be read. */
export const fileDigest = (
  file: string
): Effect.Effect<{ readonly bytes: number; readonly sha256: string }, InputError> =>
  Effect.tryPromise({
    try: async () => {
      const hash = createHash("sha256")
      let bytes = 0
      for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 })) {
        hash.update(chunk as Buffer)
        bytes += (chunk as Buffer).length
      }
      return { bytes, sha256: hash.digest("hex") }
    },
    catch: (cause) =>
      new InputError({
        file,
        field: "",
        value: reasonOf(cause),
        accepted: "a file that can be read"
      })
  })
