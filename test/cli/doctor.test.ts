// What sim doctor says can be done with a file is what the scenarios take.
import { expect, it } from "vitest"
import { sim, simEach } from "./launch.ts"

const scenarioOf = {
  "data-parallel": ["scenarios/gpt2-described.yaml", "--set", "algorithm=ddp"],
  "expert-offload": ["scenarios/expert-offload.yaml"],
  "kv-serving": ["scenarios/kv-serving.yaml"],
  "moe-training": ["scenarios/moe-training.yaml"]
}

it("a table of ops goes into each family's costs as sim doctor says", () => {
  const { stdout } = sim("doctor", "traces/profiles/h200-ops.arrow", "--json")
  const { uses } = JSON.parse(stdout) as {
    readonly uses: ReadonlyArray<{ readonly what: string; readonly how: string }>
  }
  const lines = Object.entries(scenarioOf).map(([family, scenario]) => {
    const { how } = uses.find(({ what }) => what.includes(family))!
    const [field, value] = how.split(/: (.*)/su)
    return ["run", ...scenario, "--set", `${field}=${value}`]
  })
  for (const { status, stderr } of simEach(lines)) expect([status, stderr]).toEqual([0, ""])
})
