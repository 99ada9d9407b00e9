// Planning averages of a model in parts, whose gathers and reduce-scatters stretch the step that averages hide behind.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import type { Deadline, UpdateOrder } from "../../core/algorithms/data-parallel/plan/cost.ts"
import { rehearseAverages } from "../../core/algorithms/data-parallel/plan/timeline.ts"
import { onPaper } from "../../core/machine/paper.ts"
import { planScenario } from "../../scenarios/families/data-parallel/prepare.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { decodeScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

describe("of a model in parts", () => {
  interface Drawn {
    readonly layers: number
    readonly intra: number
    readonly wan: number
    readonly order: UpdateOrder
    readonly deadline: Deadline
    readonly reshard: boolean
  }

  const rawOf = ({ layers, intra, wan, order, deadline, reshard }: Drawn, bandwidth = `${wan}B/s`) => ({
    name: "generated",
    model: { layers, parameters: layers * 1e6, stepSeconds: 0.01 },
    world: {
      ranks: 4,
      sites: 2,
      ranksPerNode: 2,
      links: { intra: { bandwidth: `${intra}B/s` }, wan: { bandwidth } }
    },
    shard: { reshardAfterForward: reshard },
    algorithm: { name: "dreamddp", period, order, deadline }
  })
  const planOf = (drawn: Drawn) =>
    Effect.runSync(
      Effect.flatMap(
        decodeScenario(rawOf(drawn), () => "generated"),
        (scenario) => planScenario(scenario as DataParallelScenario, "generated.yaml", new Loader())
      )
    )
  const period = 2

  it("averages hide behind the divided program: the plan is what that program does, and none beats its bound", () => {
    const seen = { stalled: 0, gathersExposed: 0, early: 0, exact: 0 }
    fc.assert(
      fc.property(
        fc.record({
          layers: fc.integer({ min: 1, max: 4 }),
          intra: fc.constantFrom(2e8, 1e9, 1e10),
          wan: fc.constantFrom(3e7, 1e8, 3e8, 1e9),
          order: fc.constantFrom<UpdateOrder>("average-then-step", "step-then-average"),
          deadline: fc.constantFrom<Deadline>("end-of-backward", "next-use"),
          reshard: fc.boolean()
        }),
        (drawn) => {
          const { planned, facts } = planOf(drawn)
          const { world, build, seconds } = facts.rehearsal!
          const { order, deadline } = drawn
          const ended = (sets: ReadonlyArray<ReadonlyArray<number>>, steps: number) =>
            onPaper(partialLocalSgd(build, { sets, order, deadline, overlap: true }, steps), {
              world,
              seconds
            })
          // Of a period in the steady state.
          const between = (sets: ReadonlyArray<ReadonlyArray<number>>) =>
            (ended(sets, 8 * period) - ended(sets, 4 * period)) / 4
          const idle = between([[], []])
          const exposed = (sets: ReadonlyArray<ReadonlyArray<number>>) => between(sets) - idle
          const { steps, exposedSeconds, lowerBoundSeconds: bound, planners } = planned.describe()
          const own = exposed(steps!.map(({ layers }) => layers))
          const every = Array.from({ length: period ** drawn.layers }, (_, code) => {
            const sets: Array<Array<number>> = Array.from({ length: period }, () => [])
            for (let layer = 0; layer < drawn.layers; layer++)
              sets[Math.floor(code / period ** layer) % period]!.push(layer)
            return exposed(sets)
          })
          const best = Math.min(...every)
          const rounding = 1e-9
          expect(own).toBeLessThanOrEqual(exposedSeconds! + rounding)
          expect(bound!).toBeLessThanOrEqual(best + rounding)
          const { optimal } = planners!.find(({ planner }) => planner === "assignment")!
          if (optimal) {
            expect(own).toBeLessThanOrEqual(best + rounding)
            seen.exact++
          }
          if (order === "step-then-average") expect(own).toBeCloseTo(exposedSeconds!, 9)
          if (own > rounding) seen.stalled++
          if (idle > 1.01 * period * 0.01) seen.gathersExposed++
          if (own < exposedSeconds! - rounding) seen.early++
        }
      ),
      { numRuns: 40 }
    )
    expect(Math.min(seen.stalled, seen.gathersExposed, seen.exact)).toBeGreaterThan(5)
  })

  it("windows of layers between those that are rehearsed are as good as rehearsed", () => {
    const layers = 60
    const drawn = { layers, intra: 1e9, wan: 1e8, reshard: true } as const
    const [order, deadline] = ["average-then-step", "next-use"] as const
    const { world, build, seconds } = planOf({ ...drawn, order, deadline }).facts.rehearsal!
    let runs = 0
    const counted = { world, seconds, build: Effect.tap(build, () => Effect.sync(() => runs++)) }
    const windowsOf = (averaged: (layer: number) => boolean) =>
      rehearseAverages(
        counted,
        Array.from({ length: layers }, (_, layer) => averaged(layer)),
        order,
        deadline
      )
    const windows = windowsOf(() => true)
    expect(runs).toBeLessThan(layers)
    // A layer by itself is rehearsed. All are alike, so that windows lie on straight lines.
    for (const layer of [0, 1, 2, 29, 57, 58, 59]) {
      const own = windowsOf((other) => other === layer)[layer]!
      expect(windows[layer]!.release, String(layer)).toBeCloseTo(own.release, 9)
      expect(windows[layer]!.due, String(layer)).toBeCloseTo(own.due, 9)
    }
  })

  it("the simulator's step is as much longer as was planned", () => {
    const drawn = {
      layers: 4,
      intra: 2e8,
      wan: 3e7,
      order: "step-then-average",
      deadline: "next-use",
      reshard: true
    } as const
    const seconds = (wan: string) =>
      Effect.runSync(
        Effect.flatMap(
          decodeScenario(rawOf(drawn, wan), () => "generated"),
          (scenario) =>
            Effect.map(runScenario(scenario, "generated.yaml", { loader: new Loader() }), ({ result }) =>
              metricOf(result, "stepSeconds")
            )
        )
      )
    const { exposedSeconds } = planOf(drawn).planned.describe()
    expect(exposedSeconds).toBeGreaterThan(0.01)
    expect(period * (seconds("3e7B/s") - seconds("unlimited"))).toBeCloseTo(exposedSeconds!, 6)
  })
})
