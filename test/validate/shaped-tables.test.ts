// Shipped tables of collectives over shaped links say so in their rows: their times have the link's limit in them.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { readProfile } from "../../traces/profile-file.ts"

const profiles = path.resolve(import.meta.dirname, "../../traces/profiles")

it.each([
  ["5gbit", "5gbit"],
  ["10gbit", "10gbit"],
  ["25gbit", "25gbit"],
  ["unshaped", "unshaped"],
  ["nvlink", "unshaped"]
])("nccl-%s-h200x2-cubic.arrow", async (name, limit) => {
  const { collectives } = await Effect.runPromise(
    readProfile(path.join(profiles, `nccl-${name}-h200x2-cubic.arrow`))
  )
  expect([...new Set(collectives.map(({ link }) => link))]).toEqual([limit])
})
