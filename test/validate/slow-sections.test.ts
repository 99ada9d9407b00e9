// Sections that take too long to be checked whole: a sample of FSMoE's grid of Table 5 keeps the order and the distance that all of it
// is claimed to have, and a sample of FSDP's published runs its claims.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { fsdpSection } from "../../sim/validate/fsdp-published.ts"
import { gridSection } from "../../sim/validate/fsmoe-grid.ts"

it("a sample of Table 5's layers has its order and is near its means", async () => {
  const { claims, values } = await Effect.runPromise(
    Effect.flatMap(gridSection(53).open, (opened) => opened.check(new Loader(), () => undefined))
  )
  expect(claims[0]).toMatchObject({ holds: true })
  const off = values
    .filter((value) => "published" in value)
    .map(({ published, simulated }) => Math.abs(Number(simulated) - Number(published)))
  expect(off).toHaveLength(6)
  for (const error of off) expect(error).toBeLessThan(0.08)
})

it("FSDP as others report it: the claims hold of a sample, of which one row has none", async () => {
  const { claims, values } = await Effect.runPromise(
    Effect.flatMap(fsdpSection(8).open, (opened) => opened.check(new Loader(), () => undefined))
  )
  for (const claim of claims) expect(claim).toMatchObject({ holds: true })
  expect(values.map(({ shown }) => shown === undefined)).toEqual([false, true, true, true])
})
