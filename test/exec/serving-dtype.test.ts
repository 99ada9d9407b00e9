// Serving for real is in the dtype that the scenario's model has: caches take the bytes that the simulator counts.
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { execute } from "../../exec/execute.ts"
import { ignoredByExec } from "../../scenarios/families/kv-serving/ignored.ts"
import { kernels } from "../../scenarios/families/kv-serving/kernels.ts"
import type { KvServingScenario } from "../../scenarios/families/kv-serving/scenario.ts"
import { prepare } from "../../scenarios/families/kv-serving/simulated.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { simulator } from "../../sim/run.ts"
import { describeNative } from "../native/addon.ts"

const file = fileURLToPath(new URL("../../scenarios/serve-tiny.yaml", import.meta.url))
const host = { loader: new Loader(), simulator }

const scenarioWith = (...set: ReadonlyArray<string>) =>
  Effect.map(
    loadScenario(file, ["requests={count: 2, prompt: 40, output: 4}", ...set]),
    (scenario) => scenario as KvServingScenario
  )

describeNative("serving for real", () => {
  it.each(["float32", "bfloat16", "float16"])("keeps caches of %s", async (dtype) => {
    const program = Effect.gen(function* () {
      const scenario = yield* scenarioWith(`model.dtype=${dtype}`)
      const { world, program, initial } = yield* kernels(scenario, file, host)
      const { ranks } = yield* execute({ world, program: program(), initial })
      const { simulable } = yield* prepare(scenario, file, host)
      const { ranks: simulated } = yield* simulator(simulable)
      return [ranks[0]!, simulated[0]!] as const
    })
    const [real, simulated] = await Effect.runPromise(program)
    expect(real.value.peakCacheBytes).toBe(simulated.value.peakCacheBytes)
    // four layers, two sequences of 20 rows and room for 3 more (the last token is fed to nobody), two heads of 16
    expect(real.value.peakCacheBytes).toBe((dtype === "float32" ? 4 : 2) * 4 * 2 * 2 * 23 * 2 * 16)
    expect(real.peakBytes).toEqual(simulated.peakBytes)
    expect(real.value.finished.map(({ tokens }) => tokens.length)).toEqual([4, 4])
  })

  it("says that caches narrower than the model are simulated alone", async () => {
    const warnings = ignoredByExec(await Effect.runPromise(scenarioWith("cacheDtype=int8")), false)
    expect(warnings).toContainEqual(expect.stringMatching(/^cacheDtype has no effect/u))
  })
})
