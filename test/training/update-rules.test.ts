// Every data-parallel algorithm, run with values on simulated machines whose kernels and links take any time, learns exactly
// what its paper's update rule says, calculated by hand: after every number of steps, on every rank, to the last bit.
import * as fc from "fast-check"
import { describe, it } from "vitest"
import { assertLaws } from "../../core/laws/laws.ts"
import type { Op } from "../../core/machine/op.ts"
import { Random } from "../../core/random.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { execute } from "../simulate/simulated.ts"
import { instances, parametersOf, prepared, RuleCheck, ruledNames } from "./rule-instances.ts"

/** Any time for any op, so that whatever may overlap does, in some instance. */
const costsOf = (seed: number): CostModel => {
  const random = new Random(seed).split("op times")
  const known = new Map<Op, number>()
  return {
    seconds: (op) => {
      const seconds = known.get(op) ?? random.uniform()
      known.set(op, seconds)
      return seconds
    },
    estimates: []
  }
}

describe("what a run learns is what its update rule says", () => {
  for (const name of ruledNames) {
    it(name, () => {
      const rules = new RuleCheck()
      const property = fc.property(instances(name), (instance) => {
        const { world, program, ...plan } = prepared(instance)
        const { simulated, execution } = execute({
          world,
          program,
          costs: costsOf(instance.toy.seed),
          values: () => undefined
        })
        assertLaws(execution)
        const { journals } = execution
        rules.check(
          instance,
          plan,
          parametersOf(instance, journals!, (rank, tensor) => simulated.values!.of(rank, tensor))
        )
      })
      fc.assert(property, { numRuns: 60 })
      rules.expectSeen(12)
    })
  }
})
