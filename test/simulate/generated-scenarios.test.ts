// Every law holds in every generated scenario: any world, links, model, algorithm, faults, chance. The soak of 10,000:
//   TANDEM_SOAK=5 npm run soak -- test/simulate/generated-scenarios.test.ts
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"
import { assertLaws } from "../../core/laws/laws.ts"
import { runScheduler } from "../../testing/check-scheduler.ts"
import { scenario } from "../../testing/scenario.ts"

describe("a generated scenario", () => {
  it("obeys every law, and its figures agree with each other", () => {
    const seen: Record<string, number> = {
      faults: 0,
      jitter: 0,
      "several sites": 0,
      "nodes of several ranks": 0,
      "nodes of unlike ranks": 0,
      "alpha-beta": 0,
      tree: 0,
      hierarchical: 0,
      direct: 0,
      "a measured model": 0,
      ...Object.fromEntries(dataParallelNames.map((name) => [name, 0]))
    }
    const property = fc.property(scenario(), (generated) => {
      const { context, result, execution } = runScheduler(
        ({ planned, model, steps }) => planned.program(model, steps),
        generated
      )
      assertLaws(execution)
      const { stepSeconds, computeSeconds, computeUtilisation, exposedCommunicationSeconds } = result
      const { scenario: decoded, world, profile } = context
      // By chance or fault, ranks that nothing holds together drift apart: the slowest one's steps are then not everyone's.
      if (decoded.jitter === 0 && decoded.faults.length === 0) {
        expect(stepSeconds).toBeGreaterThanOrEqual(computeSeconds * (1 - 1e-9))
        expect(computeUtilisation).toBeLessThanOrEqual(1 + 1e-9)
        expect(exposedCommunicationSeconds).toBeCloseTo(Math.max(0, stepSeconds - computeSeconds), 9)
      }
      const count = (what: string): void => {
        seen[what]!++
      }
      count(decoded.algorithm.name)
      if (decoded.faults.length > 0) count("faults")
      if (decoded.jitter > 0) count("jitter")
      if (world.sites.length > 1) count("several sites")
      const nodes = world.sites.flatMap((site) => site.nodes)
      if (nodes.some((ranks) => ranks > 1)) count("nodes of several ranks")
      if (new Set(nodes).size > 1) count("nodes of unlike ranks")
      if (decoded.network === "alpha-beta") count("alpha-beta")
      if (decoded.collectives.algorithm !== "ring") count(decoded.collectives.algorithm)
      if (profile.source !== "stated in the scenario") count("a measured model")
    })
    fc.assert(property)
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThanOrEqual(3)
  })
})
