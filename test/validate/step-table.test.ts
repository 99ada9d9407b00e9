// Sections of measured steps: what they claim, and that a claim can fail.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { stepTable } from "../../sim/validate/step-table.ts"

// By the table of docs/sharding.md: steps 10.0 % short, 1.2 and 0.7 % long; peaks 2.0 % off at worst, five within 1 %.
it("counts what is within each claim's bound, and fails those that a step does not meet or nobody measured", async () => {
  const section = stepTable({
    name: "steps",
    title: "steps",
    table: "sharded-h100.measured.json",
    peaksWithin: 0.01,
    claims: [
      { of: "nvlink", claim: "met", within: 0.11 },
      { of: "nvlink", claim: "not met", within: 0.05 },
      { of: "25gbit", claim: "not measured", within: 0.05 }
    ],
    notes: []
  })
  const { claims } = await Effect.runPromise(
    Effect.flatMap(section.open, (table) => table.check(new Loader(), () => undefined))
  )
  expect(claims).toEqual([
    {
      claim: "peaks of memory, whole and in parts, (within 5 %: 10 of 10) within 1 %",
      holds: false,
      found: "5 of 10, worst 2.0 %"
    },
    { claim: "met (within 5 %: 2 of 3) within 11 %", holds: true, found: "3 of 3, worst 10.0 %" },
    { claim: "not met within 5 %", holds: false, found: "2 of 3, worst 10.0 %" },
    { claim: "not measured within 5 %", holds: false, found: "none measured" }
  ])
})
