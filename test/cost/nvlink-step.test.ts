// Steps of GPT-2 124M on two H100s over NVLink, which their host sets the pace of: DDP took 47 to 50 ms, local SGD that averages
// every fifth step 44.1 ms. What is given: the local step and all-reduces of that machine, and hooks and calls as imported of a
// profiler trace of DDP on another (two ranks on one H200, PyTorch 2.11, NCCL over loopback: 26.6 us a tensor, 172 us a call).
// Nothing is fitted to the steps. Beside them: the usual hooks and calls, and a program that never waits for its steps.
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const file = fileURLToPath(new URL("../../scenarios/measured/ddp-gpt2-h200.yaml", import.meta.url))
const profiles = "../../traces/profiles"

const stepMilliseconds = async (...more: ReadonlyArray<string>): Promise<number> => {
  const scenario = await Effect.runPromise(
    loadScenario(file, [
      `model={profile: ${profiles}/gpt2-h100.arrow}`,
      `collectives={measured: ${profiles}/nccl-h100-nvlink.arrow}`,
      "world={ranks: 2, links: {inter: {bandwidth: 450GB/s, latency: 0s}}}",
      ...more
    ])
  )
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  return (result as unknown as { readonly stepSeconds: number }).stepSeconds * 1e3
}

const measured = "mode: eager, launch: 33.1us, collective: 172us, hook: 26.6us, read: 20us"
const localSgd = "algorithm={name: local-sgd, period: 5}"

it("takes a step over NVLink as long as it took, within a twentieth", async () => {
  const off = (step: number, real: number) => Math.abs(step / real - 1)
  const ddp = await stepMilliseconds(`host={${measured}}`)
  expect(off(ddp, 48.5)).toBeLessThan(0.05)
  // Timing each step, a program waits for it.
  expect(off(await stepMilliseconds(`host={${measured}, readEachStep: true}`), 48.5)).toBeLessThan(0.05)
  expect(off(await stepMilliseconds(localSgd, `host={${measured}, readEachStep: true}`), 44.1)).toBeLessThan(
    0.05
  )
  expect(off(await stepMilliseconds("host=eager"), 48.5)).toBeLessThan(0.05)
  // Without a host, or with one that runs ahead of the averages, it is too short by more.
  expect(off(await stepMilliseconds("host=none"), 48.5)).toBeGreaterThan(0.1)
  expect(off(await stepMilliseconds(localSgd, `host={${measured}}`), 44.1)).toBeGreaterThan(0.05)
})
