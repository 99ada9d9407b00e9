// Any program does on any machine what its ops do one after the other, with a log and times that obey every law: whatever the
// rings' size, however long ops take.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import { describeContract, runOn } from "./machines.ts"
import { contractProgram, elements, meaningOf, programOf, type ContractProgram } from "./programs.ts"

/** Most bytes of device memory at a time: a tensor is freed before the next is made. */
const deviceBytes = ({ near }: ContractProgram): number => 4 * elements * near

describeContract("any program", (machine) => {
  it("means its ops done one after the other, and obeys every law", async () => {
    const reached = { ranks: 0, beyondRing: 0, together: 0, renewed: 0, scalars: 0, broadcast: 0, steps: 0 }
    const property = fc.asyncProperty(
      contractProgram,
      fc.constantFrom(1, 4, 1024),
      fc.constantFrom(0, 1, 3),
      async (program, ring, lookAhead) => {
        const journals: Array<Journal> = []
        const { ranks, timeline, opLogs } = await runOn(
          machine,
          program.ranks,
          journaled(programOf(program), journals),
          { ring, lookAhead, seconds: (label) => (label.startsWith("slow") ? 0.0005 : 0) }
        )
        expect(ranks.map(({ value }) => value)).toEqual(meaningOf(program))
        expect(
          checkLaws({
            timeline: timeline!,
            opLogs,
            journals,
            lookAheadSteps: lookAhead,
            leaveApart: true,
            capacityBytes: { device: deviceBytes(program) },
            peakBytes: ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes }))
          })
        ).toBeUndefined()
        const ops = opLogs[0]!.entries.length
        expect(ranks.map((rank) => rank.ops)).toEqual(ranks.map(() => ops))
        const has = (found: (action: ContractProgram["actions"][number]) => boolean): number =>
          program.actions.some(found) ? 1 : 0
        reached.ranks += program.ranks > 1 ? 1 : 0
        reached.beyondRing += ops > ring ? 1 : 0
        reached.together += has((action) => action.do === "read" && action.of.length > 1)
        reached.renewed += has((action) => action.do === "renew")
        reached.scalars += has((action) => action.do === "descend")
        reached.broadcast += has((action) => action.do === "broadcast" && action.root % program.ranks > 0)
        reached.steps += program.actions.filter((action) => action.do === "step").length > 3 ? 1 : 0
      }
    )
    await fc.assert(property, { numRuns: 60 })
    for (const [what, count] of Object.entries(reached)) expect(count, what).toBeGreaterThan(4)
  })
})
