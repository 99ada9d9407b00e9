// An algorithm whose ranks have partners of their own, other ones in each step: its plan says that ranks differ, and a simulation of
// its scenario runs each by itself; without that word, one rank would stand for all, which is refused.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { expect, it, vi } from "vitest"
import type { PlannedAlgorithm } from "../../core/algorithms/data-parallel/algorithm.ts"
import { dataParallelNamed } from "../../core/algorithms/data-parallel/algorithms.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { prepare } from "../../scenarios/families/data-parallel/prepare.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { simulate } from "../../sim/simulate.ts"
import { scenarioFile, small } from "../scenario/files.ts"

const elements = 1000

/** In step s, ranks whose numbers differ in bit s mod 2 average with each other. */
const gossip = (ranksDiffer: boolean, learnt: Array<number> | undefined): PlannedAlgorithm => ({
  periodSteps: 2,
  warmupSteps: 0,
  wire: "float32",
  ranksDiffer,
  describe: () => ({}),
  program: (_, steps) =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({
        name: "x",
        shape: [elements],
        dtype: "float32",
        initial: () => new Float32Array(elements).fill(machine.rank)
      })
      for (let step = 0; step < steps; step++) {
        const own = machine.rank & ~(1 << (step % 2))
        const ranks = [own, own | (1 << (step % 2))]
        machine.submit(launch("compute", kernels.copy, Lane.compute, [x], [x]))
        machine.submit(
          collective("average", kernels.all_reduce, Lane.inter, { name: `pair ${ranks}`, ranks }, [x], [x], {
            attributes: { reduce: "avg" }
          })
        )
        yield* machine.endStep
      }
      if (learnt !== undefined) learnt.push((yield* machine.read(x))[0]!)
    })
})

it("partners of their own are simulated each by itself, where the plan says that ranks differ", () => {
  const averages = 2
  const run = (ranksDiffer: boolean, learnt?: Array<number>) => {
    const plan = vi.spyOn(dataParallelNamed("ddp"), "plan")
    try {
      let told = 0
      plan.mockImplementation((_, { ranks }) => {
        told = ranks
        return Result.succeed(gossip(ranksDiffer, learnt))
      })
      const file = scenarioFile(small)
      const scenario = Effect.runSync(loadScenario(file, ["world.ranks=4", `steps=${averages}`]))
      const { simulable, totalSteps } = Effect.runSync(
        prepare(scenario as DataParallelScenario, file, { loader: new Loader() })
      )
      expect([told, totalSteps]).toEqual([4, averages])
      const given = learnt === undefined ? {} : { values: () => undefined }
      return Effect.runSync(
        simulate({
          ...simulable,
          faults: undefined,
          symmetric: simulable.symmetric ?? true,
          record: false,
          jitter: 0,
          seed: 0,
          capacityBytes: {},
          ...given
        })
      )
    } finally {
      plan.mockRestore()
    }
  }
  const { ranks, links } = run(true)
  expect(ranks.map(({ count }) => count)).toEqual([1, 1, 1, 1])
  const learnt: Array<number> = []
  run(true, learnt)
  // After both bits everyone has the mean of 0 to 3.
  expect(learnt).toEqual([1.5, 1.5, 1.5, 1.5])
  // A ring of two sends as much as the message has, out of each rank and in each step.
  const sent = links.filter(({ name }) => name.startsWith("inter out"))
  expect(sent.length).toBeGreaterThan(0)
  for (const { bytes } of sent) expect(bytes).toBeCloseTo(averages * elements * 4, 6)
  expect(() => run(false)).toThrow("have the algorithm's plan say that ranksDiffer")
})
