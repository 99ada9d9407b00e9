// What is warned of windows where each pair of sites has a link of its own: as of uplinks, of the pair that has most on the way.
import { writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runScenario } from "../../sim/run.ts"
import { scenarioFile, small } from "./files.ts"

const sites = "world.sites=[{name: a, ranks: 1}, {name: b, ranks: 1}, {name: c, ranks: 1}]"

/** Warnings of a run, and of a schedule, of three sites with links of [round trip in ms, Gbit/s] between them. */
const told = (links: Readonly<Record<string, readonly [number, number]>>, ...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(small)
  writeFileSync(join(dirname(file), "pairs.json"), JSON.stringify({ pairs: links }))
  const fast = "world.links.inter={bandwidth: 100Gbit/s}"
  const all = ["collectives.chunk=4MiB", "world.ranks=3", sites, fast, "world.links.wan={pairs: pairs.json}"]
  return Effect.runSync(
    Effect.gen(function* () {
      const loader = new Loader()
      const scenario = yield* loadScenario(file, [...all, ...sets])
      const { result } = yield* runScenario(scenario, file, { loader })
      const { warnings } = yield* familyOf(scenario).schedule(scenario, file, hostOf(loader))
      // What messages as small as these show besides only a run can tell.
      const beforeRuns = result.warnings.filter((warning) => !warning.includes("of this run"))
      expect(warnings).toEqual(beforeRuns)
      return beforeRuns
    })
  )
}

const near = { "a-b": [10, 1], "a-c": [10, 1], "b-c": [10, 1] } as const

it("nothing where less than 4 MiB is on the way", () => {
  expect(told(near)).toEqual([])
  expect(told({ ...near, "b-c": [33.5, 1] })).toEqual([])
})

it("the pair with most on the way, of which nobody says how much may be", () => {
  const far = { ...near, "a-b": [40, 1], "b-c": [50, 2] } as const
  const most =
    "world.links.wan, b to c: 2.00 Gbit/s over a round trip of 50.0 ms is 12.5 MB on the way at once; where TCP's windows hold less, messages are slower (world.links.wan.window)"
  expect(told(far)).toEqual([most])
  const ring =
    "collectives: NCCL sends 4 MiB around a ring at a time (NCCL_BUFFSIZE), which takes longer over such links; here all bytes follow each other (collectives.chunk)"
  expect(told(far, "collectives={algorithm: ring}")).toEqual([most, ring])
  // Pairs of other sites than the world's are nobody's, and a way is as fast as the nodes at its ends.
  expect(told({ ...near, "c-d": [900, 10] })).toEqual([])
  expect(told(far, "world.links.inter={bandwidth: 500Mbit/s}")).toEqual([])
  // The way there and the way back, and the nodes' own delay.
  expect(told({ ...near, "b-c": [30, 1], "c-b": [40, 1] })).toHaveLength(1)
  expect(
    told({ ...near, "b-c": [30, 1] }, "world.links.inter={bandwidth: 100Gbit/s, latency: 0.1ms}")
  ).toEqual([])
  expect(
    told({ ...near, "b-c": [33.5, 1] }, "world.links.inter={bandwidth: 100Gbit/s, latency: 0.1ms}")
  ).toHaveLength(1)
  expect(told(far, "world.links.wan={pairs: pairs.json, window: 1MiB}")).toEqual([])
  expect(told(far, "world.links.inter={bandwidth: 100Gbit/s, window: 1MiB}")).toEqual([])
})

it("a window that no message fills, of pairs and of the nodes at their ends", () => {
  const window = (bytes: string) => `world.links.wan={pairs: pairs.json, window: ${bytes}}`
  expect(told(near, window("1.25MB"))).toEqual([
    "world.links.wan.window has no effect: no pair's bandwidth lets as much be on the way in a round trip"
  ])
  expect(told({ ...near, "a-b": [11, 1] }, window("1.25MB"))).toEqual([])
  expect(told(near, "world.links.inter={bandwidth: 1Gbit/s, window: 1.25MB}")).toEqual([
    "world.links.inter.window has no effect: the link's bandwidth lets no more than 1.25 MB be on the way in a round trip"
  ])
  expect(told({ ...near, "a-b": [11, 1] }, "world.links.inter={bandwidth: 1Gbit/s, window: 1.25MB}")).toEqual(
    []
  )
})
