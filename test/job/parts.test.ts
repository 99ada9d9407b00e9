// What is too large for one message between processes: gathered in parts, whole again at rank 0.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { inParts } from "../../exec/record-run.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"

/** Rank 0 of a job whose other ranks send `others`, part by part. */
const jobWith = (others: ReadonlyArray<Uint8Array>, partBytes: number) => {
  let gathers = 0
  const job: Pick<ProcessJob, "rank" | "exchange" | "gather"> = {
    rank: 0,
    exchange: <A>(value: A) => Effect.succeed([value, ...others.map(({ length }) => length as A)]),
    gather: <A>(value: A) => {
      const begin = gathers++ * partBytes
      return Effect.succeed([value, ...others.map((bytes) => bytes.slice(begin, begin + partBytes) as A)])
    }
  }
  return { job, gathers: () => gathers }
}

it("comes whole to rank 0, whatever its size on each rank", async () => {
  const seen = { several: 0, uneven: 0 }
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 16 }),
      async (ranks, partBytes) => {
        const { job, gathers } = jobWith(ranks.slice(1), partBytes)
        const all = await Effect.runPromise(inParts(ranks[0]!, job, partBytes))
        expect(all!.map((bytes) => [...bytes])).toEqual(ranks.map((bytes) => [...bytes]))
        if (gathers() > 1) seen.several++
        if (new Set(ranks.map(({ length }) => Math.ceil(length / partBytes))).size > 1) seen.uneven++
      }
    )
  )
  expect(seen.several).toBeGreaterThan(10)
  expect(seen.uneven).toBeGreaterThan(10)
})
