// Simulated time is real time where every rank has a device of its own, emulated: within 10 % in the median, with the costs that
// the run recorded itself.
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { runnableOn, runOnBoth } from "../../exec/cli/both-machines.ts"
import { leastSecondsOn } from "../../exec/cli/emulated-device.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { describeNative } from "../native/addon.ts"

const scenario = fileURLToPath(new URL("../../scenarios/agree/data-parallel.yaml", import.meta.url))

describeNative("simulated and real time", () => {
  it("agree on emulated devices and links", async () => {
    const errors: Array<number> = []
    for (const sets of [
      ["algorithm=s-sgd", "ranks=2"],
      ["algorithm=ddp", "ranks=3", "inter.bandwidth=5Mbit/s"],
      ["algorithm={name: dreamddp, period: 3}", "ranks=2", "inter.bandwidth=2Mbit/s", "inter.latency=1ms"]
    ]) {
      const options = await Effect.runPromise(
        Effect.flatMap(loadScenario(scenario, ["steps=3", ...sets]), (loaded) =>
          runnableOn(loaded, scenario, new Loader())
        )
      )
      const device = { name: "slow", flopsPerSecond: 1e7, memoryBytesPerSecond: 1e8 }
      const { agreement, executed } = await Effect.runPromise(
        runOnBoth({ ...options, leastSeconds: leastSecondsOn(device) })
      )
      expect(agreement.firstDisagreement).toBeUndefined()
      // Kernels of some 0.1 s a step really were stretched.
      expect(executed.makespanSeconds).toBeGreaterThan(0.2)
      errors.push(Math.abs(agreement.timeError))
    }
    expect(errors.toSorted((a, b) => a - b)[1]).toBeLessThan(0.1)
  })
})
