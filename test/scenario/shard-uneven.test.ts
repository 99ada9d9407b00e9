// Models in parts among ranks that are not alike: no rank stands for another, and the step is that of every rank by itself.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile } from "./files.ts"

const base = (sites: string): string => `
name: uneven
model: { layers: 4, parameters: 4e6, stepSeconds: 10ms }
world: { sites: ${sites}, ranksPerNode: 2, links: { intra: { bandwidth: 1GB/s }, inter: { bandwidth: 1Gbit/s }, wan: { bandwidth: 100Mbit/s } } }
shard: {}
algorithm: ddp
steps: 2
`

const uneven = "[{ name: a, ranks: 4 }, { name: b, ranks: 2 }]"
const even = "[{ name: a, ranks: 4 }, { name: b, ranks: 4 }]"

/** Seconds a step. */
const ran = (text: string, ...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(text)
  return Effect.runPromise(
    Effect.flatMap(loadScenario(file, sets), (scenario) =>
      Effect.map(runScenario(scenario, file, { loader: new Loader() }), ({ result }) =>
        metricOf(result, "stepSeconds")
      )
    )
  )
}

describe("a model in parts among ranks that are not alike", () => {
  it.each([
    ["nodes, of sites of several sizes", uneven, ["shard.within=node"]],
    ["all of sites of several sizes", uneven, ["shard.within=world"]],
    ["a site with a straggler", even, ["faults=[{straggler: 1, speed: 0.5}]"]],
    [
      "nodes, one of them with a straggler",
      even,
      ["shard.within=node", "faults=[{straggler: 1, speed: 0.5}]"]
    ]
  ])("runs in %s", async (_, sites, sets) => {
    for (const algorithm of ["ddp", "{name: diloco, period: 2}"]) {
      const seconds = await ran(base(sites), ...sets, `algorithm=${algorithm}`)
      // So little jitter that only its side effect is left: every rank is simulated by itself.
      const each = await ran(base(sites), ...sets, `algorithm=${algorithm}`, "jitter=1e-9")
      expect(seconds).toBeGreaterThan(0)
      expect(each / seconds).toBeCloseTo(1, 6)
    }
  })

  it("is no limit of those that are: ten thousand ranks in sites of eight", async () => {
    const sites = "1250, ranks: 10000"
    expect(await ran(base(sites), "model.layers=60", "ranksPerNode=8")).toBeGreaterThan(0)
  })

  it("is refused where every rank by itself is too many", async () => {
    const many = "[{ name: a, ranks: 4000 }, { name: b, ranks: 2000 }]"
    await expect(ran(base(many), "shard.within=node", "model.layers=100")).rejects.toThrow(/world\.ranks/u)
  })
})
