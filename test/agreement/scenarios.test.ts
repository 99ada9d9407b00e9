// Generated scenarios on both machines: they agree; and where a machine is broken, what is left is a scenario file that both
// commands accept. A soak makes it 100 scenarios, and leaves what it finds in counterexamples/.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, expect, it } from "vitest"
import { runOnBoth, runnableOn } from "../../exec/cli/both-machines.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { agreementScenario, checkAgreement } from "../../testing/check-agreement.ts"
import { describeNative } from "../native/addon.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "agreement-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const runs = 5

describeNative("scenarios on both machines", () => {
  it("agree", async () => {
    const { failure, numRuns, file } = await checkAgreement({ numRuns: runs })
    expect(failure, `see ${file}`).toBeUndefined()
    expect(numRuns).toBeGreaterThanOrEqual(runs)
  })

  it("leave a scenario file where a machine is broken", async () => {
    // The real machine begins with one parameter a little off.
    const details = await checkAgreement({
      numRuns: 20,
      scenarios: agreementScenario({ algorithms: ["s-sgd"], maxRanks: 2, maxSteps: 1 }),
      seed: 3,
      saveTo: folder,
      name: "broken",
      both: {
        execution: {
          initial: (rank, { name, elements, dtype }) =>
            rank === 0 && dtype === "float32" && name.endsWith("wte.weight")
              ? new Float32Array(elements).fill(0.5)
              : undefined
        }
      }
    })
    expect(details.failure).toMatch(/rank 0, tensor \d+/u)
    const file = details.file!
    expect(fs.readFileSync(file, "utf8")).toContain(`seed ${details.seed}`)
    const { result } = await Effect.runPromise(
      Effect.flatMap(loadScenario(file, []), (loaded) => runScenario(loaded, file, { loader: new Loader() }))
    )
    expect(result.scenario).toBe("broken")
    const { agreement } = await Effect.runPromise(
      Effect.gen(function* () {
        const runnable = yield* runnableOn(yield* loadScenario(file, []), file, new Loader())
        return yield* runOnBoth(runnable)
      })
    )
    expect(agreement.firstDisagreement).toBeUndefined()
  })
})
