// FSMoE's tables: a sample of the grid of Table 5 keeps the order and the distance that the whole of it is claimed to have.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
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
