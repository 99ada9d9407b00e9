// Sizes that no process can run are refused before anything is built, with the size that would do; what outgrows the process's
// memory all the same ends with an error, not with the process.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Worker } from "node:worker_threads"
import * as Effect from "effect/Effect"
import { afterAll, describe, expect, it } from "vitest"
import { InputError } from "../../core/input-error.ts"
import { familyOf, withIgnoredFields } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runScenario } from "../../sim/run.ts"

const shipped = path.resolve(import.meta.dirname, "../../scenarios")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "sizes-"))
afterAll(() => fs.rmSync(folder, { recursive: true }))
const small = path.join(folder, "small.yaml")
fs.writeFileSync(
  small,
  `name: small
model: { layers: 10, parameters: 1000000, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
`
)

const refusal = async (file: string, ...set: ReadonlyArray<string>): Promise<string> => {
  const error = await Effect.runPromise(
    Effect.flip(
      Effect.gen(function* () {
        const { scenario, locate } = yield* loadLocatedScenario(file, set)
        yield* Effect.mapError(familyOf(scenario).prepare(scenario, file, hostOf(new Loader())), (error) =>
          error instanceof InputError ? locate(error) : error
        )
      })
    )
  )
  return error.message
}

const offload = path.join(shipped, "expert-offload.yaml")
const serving = path.join(shipped, "kv-serving.yaml")
const moe = path.join(shipped, "moe-training.yaml")
const skew = path.join(shipped, "moe-skew.yaml")

describe("sizes that no process can hold", () => {
  it.each([
    [small, ["ranks=10000000"], "world.ranks: 10000000", "from 1 to 1000000"],
    [small, ["world.ranks=4", "sites=10000000"], "world.sites: 10000000", "1000000"],
    [small, ["model.layers=1000000"], "model.layers: 1000000", "from 1 to 10000"],
    [small, ["algorithm={name: dreamddp, period: 1000000}"], "algorithm", "from 1 to 100000"],
    [small, ["jitter=0.1", "ranks=100000"], "world.ranks: 100000", "at most 50000 with 10 layers of each"],
    [
      small,
      ["model.layers=1000", "algorithm={name: local-sgd, period: 100000}"],
      "algorithm.period: 100000",
      "at most 20000 with 1000 layers"
    ],
    [offload, ["model.layers=1000", "model.experts=10000"], "model.layers: 1000", "at most 100 with 10000"],
    [offload, ["workload.batch=1000"], "workload.decodeTokens: 48", "fewer choices of experts for each"],
    [offload, ["decodeTokens=1000000"], "workload.decodeTokens: 1000000", "at most 62436 with 64 choices"],
    [serving, ["requests.count=10000000"], "requests.count: 10000000", "from 1 to 1000000"],
    [moe, ["model.layers=10000", "model.experts=10000"], "model.layers: 10000", "at most 100 with 10000"],
    // On 4 ranks of a node, in 2 layers and, with two more, 5 steps.
    [skew, ["model.experts=4096"], "model.experts: 4096", "at most 2500 with 40 products of each"],
    [
      offload,
      ["algorithm=layer-ring", "model.experts=4096"],
      "model.experts: 4096",
      "at most 1275 with 1568 loads of each in a ring"
    ]
  ])("%s %j", async (file, set, said, accepted) => {
    const message = await refusal(file, ...set)
    expect(message).toContain(said)
    expect(message).toContain(accepted)
  })
})

describe("as many sites as a world may have ranks", () => {
  it.each(["ring", "direct", "hierarchical", "tree"])("are simulated, %s", (algorithm) => {
    const set = ["ranks=200000", "sites=200000", "steps=1", `collectives.algorithm=${algorithm}`]
    const wan = ["world.links.wan.bandwidth=1Gbit/s", "world.links.wan.latency=1ms"]
    const result = Effect.runSync(
      Effect.gen(function* () {
        const { scenario } = yield* loadLocatedScenario(small, [...set, ...wan])
        const { result } = yield* runScenario(scenario, small, { loader: new Loader() })
        return withIgnoredFields(result, scenario)
      })
    )
    expect(result.ranks).toBe(200_000)
    expect(result.warnings).toEqual(
      algorithm === "hierarchical" ? [expect.stringContaining("hierarchical")] : []
    )
  })
})

describe("a simulation that outgrows its process", () => {
  it("ends with an error that says what would do", async () => {
    const worker = new Worker(new URL("greedy.ts", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 100, maxYoungGenerationSizeMb: 4 },
      execArgv: []
    })
    const told = await new Promise<{ readonly name: string; readonly message: string }>((resolve, reject) => {
      worker.once("message", resolve)
      worker.once("error", reject)
    })
    await worker.terminate()
    expect(told.name).toBe("DeviceFault")
    expect(told.message).toMatch(/this process may have .* the simulation needs more: fewer ranks/u)
  })
})
