// The simulator and the executor agree: same decisions, same values, a legal order, on programs drawn at random and on every
// data-parallel algorithm that trains a tiny model. 5,000 and more with `TANDEM_SOAK=1 npm run soak -- test/agreement`.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { checkLaws } from "../../core/laws/laws.ts"
import { runOnBoth, type Both, type BothOptions } from "../../exec/cli/both-machines.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld } from "../simulate/simulated.ts"
import { drawnTraining } from "./generated-families.ts"
import { generatedProgram, programOf } from "./generated-programs.ts"

const both = async <A>(options: BothOptions<A>): Promise<Both<A>> => {
  const result = await Effect.runPromise(runOnBoth(options))
  expect(result.agreement.firstDisagreement).toBeUndefined()
  expect(result.agreement).toMatchObject({ decisions: true, values: true, order: true })
  expect(checkLaws(result.simulatedRun)).toBeUndefined()
  return result
}

describeNative("both machines agree", () => {
  it("on generated programs", async () => {
    const seen = { edges: 0, collectives: 0, copies: 0, reads: 0, frees: 0, steps: 0, tensors: 0 }
    await fc.assert(
      fc.asyncProperty(generatedProgram(), async (generated) => {
        const { agreement, executedRun } = await both({
          world: flatWorld(generated.ranks),
          program: () => programOf(generated)
        })
        seen.tensors += agreement.comparedTensors
        for (const { entries } of executedRun.opLogs) {
          for (const { after, group } of entries) {
            seen.edges += after.length
            if (group !== undefined) seen.collectives++
          }
        }
        for (const { do: action } of generated.actions) {
          if (action === "load" || action === "store") seen.copies++
          if (action === "decide") seen.reads++
          if (action === "renew") seen.frees++
          if (action === "step") seen.steps++
        }
      }),
      { numRuns: 220 }
    )
    expect(seen.edges).toBeGreaterThan(1000)
    for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(100)
  })

  it("on every data-parallel algorithm", async () => {
    const seen = new Map<string, number>()
    await fc.assert(
      fc.asyncProperty(drawnTraining(fc.integer({ min: 1, max: 3 })), async ({ of, options }) => {
        await both(options)
        seen.set(of, (seen.get(of) ?? 0) + 1)
      }),
      { numRuns: 80 }
    )
    expect([...seen.keys()].toSorted()).toHaveLength(7)
  })
})
