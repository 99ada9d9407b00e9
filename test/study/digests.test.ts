// Shipped scenarios give the same bits on every machine and every Node. The digests on record say nothing of whether the
// numbers are right, only that they are the same: what changes a time on purpose changes them, and records them anew with
//   TANDEM_RECORD_DIGESTS=1 npx vitest run test/study/digests.test.ts
// To hold other versions of Node to them:
//   TANDEM_NODES=/path/to/node22:/path/to/node26 npx vitest run test/study/digests.test.ts
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../../sim/run.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const record = path.join(root, "test/fixtures/digests.json")
const recording = (process.env["TANDEM_RECORD_DIGESTS"] ?? "") !== ""

interface Case {
  readonly scenario: string
  readonly set: ReadonlyArray<string>
}

// Every network, way of expanding collectives and kind of model; faults and chance.
const cases: ReadonlyArray<Case> = [
  { scenario: "scenarios/geo-gpt2.yaml", set: [] },
  { scenario: "scenarios/geo-gpt2.yaml", set: ["network=alpha-beta", "algorithm=ddp"] },
  { scenario: "scenarios/measured/ddp-gpt2-h200.yaml", set: ["ranks=4", "bandwidth=10gbit"] },
  {
    scenario: "scenarios/two-regions.yaml",
    set: ["collectives.algorithm=hierarchical", "algorithm={name: dreamddp, period: 5}"]
  },
  { scenario: "scenarios/unlike-sites.yaml", set: [] },
  {
    scenario: "scenarios/faults.yaml",
    set: [
      "faults=[{link: wan, of: 3, bandwidth: 100Mbit/s, from: 1s, for: 2s}, {outage: 2, from: 2s, for: 1s}]",
      "algorithm={name: streaming-diloco, period: 20}",
      "collectives.algorithm=tree",
      "jitter=0.1",
      "seed=3"
    ]
  },
  {
    scenario: "scenarios/gpt2-described.yaml",
    set: ["model.gpt2.layers=2", "algorithm={name: diloco, period: 10}", "inter.bandwidth=1Gbit/s"]
  }
]

const nameOf = ({ scenario, set }: Case): string => [scenario, ...set].join(" --set ")

const recorded = (): Record<string, string> =>
  JSON.parse(fs.readFileSync(record, "utf8")) as Record<string, string>

const digestOf = ({ scenario, set }: Case): Promise<string> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const file = path.join(root, scenario)
      const { result } = yield* runScenario(yield* loadScenario(file, set), file, { loader: new Loader() })
      return result.digest
    })
  )

describe.runIf(recording)("digests of shipped scenarios", () => {
  it("are recorded", async () => {
    const digests: Record<string, string> = {}
    for (const one of cases) digests[nameOf(one)] = await digestOf(one)
    fs.writeFileSync(record, `${JSON.stringify(digests, undefined, 2)}\n`)
  })
})

describe.skipIf(recording)("digests of shipped scenarios", () => {
  it("are on record, and no others", () => {
    expect(Object.keys(recorded())).toEqual(cases.map(nameOf))
  })

  it.each(cases.map((one) => [nameOf(one), one] as const))("%s", async (name, one) => {
    expect(await digestOf(one)).toBe(recorded()[name])
  })

  const others = (process.env["TANDEM_NODES"] ?? "").split(":").filter((node) => node !== "")
  it.each(others)("are the same under %s", (node) => {
    for (const one of cases) {
      const sets = one.set.flatMap((set) => ["--set", set])
      const args = [path.join(root, "bin/sim.js"), "run", path.join(root, one.scenario), ...sets, "--json"]
      const { status, stdout, stderr } = spawnSync(node, args, { encoding: "utf8" })
      expect(status, stderr).toBe(0)
      expect((JSON.parse(stdout) as { digest: string }).digest).toBe(recorded()[nameOf(one)])
    }
  })
})
