// A real decoding loop with offloaded experts, eager PyTorch on an H100, with the routes it took: the same loads, and times within
// a tenth with a launch as long as a training step of GPT-2 on such a machine shows: 40.15 ms for 1,213 launches (PyTorch 2.11,
// 4 x 1024 tokens, un-profiled, launches counted in its trace). Nothing was set after these runs. Conditions are in the fixture.
import * as Effect from "effect/Effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { importRouting, routingRows } from "../../traces/routing/import.ts"

interface Measured {
  readonly slots: number
  readonly mean_step_seconds: number
  readonly loads: number
  /** [token][layer][k]. */
  readonly tokens: ReadonlyArray<unknown>
}

const { runs } = JSON.parse(
  readFileSync(new URL("../fixtures/measured/h100-offload.json", import.meta.url), "utf8")
) as { readonly runs: ReadonlyArray<Measured> }
const folder = mkdtempSync(path.join(tmpdir(), "offload-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const scenarioFile = new URL("../../scenarios/expert-offload.yaml", import.meta.url).pathname

const simulate = async ({ slots, tokens }: Measured, ...more: ReadonlyArray<string>) => {
  const trace = path.join(folder, `${slots}.arrow`)
  const { routing } = await Effect.runPromise(
    importRouting("vllm", new TextEncoder().encode(JSON.stringify(tokens)), { keepWarmup: true })
  )
  await Effect.runPromise(writeRouting(trace, routingRows(routing)))
  const scenario = await Effect.runPromise(
    loadScenario(scenarioFile, [
      "model={like: mixtral-8x7b, layers: 4}",
      `routing={trace: ${trace}}`,
      "workload={batch: 1, promptTokens: 32, prefill: false, decodeTokens: 96, warmupSteps: 24}",
      `cache={slotsPerLayer: ${slots}}`,
      "hostLink={bandwidth: 53.9GB/s, latency: 0s}",
      "algorithm=lru",
      "device=NVIDIA H100",
      ...more
    ])
  )
  const { result } = await Effect.runPromise(runScenario(scenario, scenarioFile, { loader: new Loader() }))
  return result as unknown as { readonly loads: number; readonly decodeStepSeconds: number }
}

describe("a measured decoding loop", () => {
  it("makes the loads that we count, and takes as long within a tenth with its host", async () => {
    expect(runs.map(({ slots }) => slots)).toEqual([4, 8])
    for (const measured of runs) {
      const { loads, decodeStepSeconds } = await simulate(
        measured,
        "host={mode: eager, launch: 33.1us, read: 20us}"
      )
      expect(loads).toBe(measured.loads)
      expect(Math.abs(decodeStepSeconds / measured.mean_step_seconds - 1)).toBeLessThan(0.1)
      // Without a host it is the copies alone, and far less where there are few.
      const bare = await simulate(measured, "host=none")
      expect(bare.decodeStepSeconds).toBeLessThan(0.8 * measured.mean_step_seconds)
    }
  })
})
