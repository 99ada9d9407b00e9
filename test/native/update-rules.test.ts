// Every data-parallel algorithm, run for real on as many ranks as threads, learns exactly what its paper's update rule says,
// calculated by hand: after every number of steps, on every rank, to the last bit.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { it } from "vitest"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { executeThen } from "../../exec/execute.ts"
import { instances, parametersOf, prepared, RuleCheck, ruledNames } from "../training/rule-instances.ts"
import { describeNative } from "./addon.ts"

describeNative("what a real run learns is what its update rule says", () => {
  for (const name of ruledNames) {
    it(name, async () => {
      const rules = new RuleCheck()
      const property = fc.asyncProperty(instances(name), async (instance) => {
        const { world, program, ...plan } = prepared(instance)
        const journals: Array<Journal> = []
        const parameters = await Effect.runPromise(
          executeThen({ world, program: journaled(program, journals) }, ({ valuesOf }) =>
            parametersOf(instance, journals, valuesOf)
          )
        )
        rules.check(instance, plan, parameters)
      })
      await fc.assert(property, { numRuns: 80 })
      rules.expectSeen(8)
    })
  }
})
