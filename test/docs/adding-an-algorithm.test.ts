// docs/adding-an-algorithm.md: its code makes an algorithm of one new folder and one list, everywhere at once.
import { afterAll, describe, expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { Added, compiling } from "./added.ts"

const added = new Added("docs/adding-an-algorithm.md")

afterAll(() => added.remove())

describe("docs/adding-an-algorithm.md", () => {
  it("touches one new folder, one list, its row and its test", () => {
    expect(added.touched).toEqual({
      folders: ["core/algorithms/data-parallel/round-robin", "test/data-parallel-plan"],
      changed: ["core/algorithms/data-parallel/algorithms.ts", "docs/scenarios.md"]
    })
  })

  it("compiles", () => expect(added.compile()).toBe(""), compiling)

  it("shows what is said", () => {
    expect(added.shown).toHaveLength(1)
    for (const { command, output } of added.shown) expect(added.run(command)).toEqual({ status: 0, output })
  })

  it("is simulated", () => {
    const { output, status } = added.run(["bin/sim.js", "run", "round-robin.yaml", "--json"])
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ algorithm: "round-robin", steps: 4, warmupSteps: 2 })
  })

  it(
    "goes on from a snapshot as every algorithm, is documented as it is, and passes its test",
    () => {
      const files = [
        "test/contract/snapshots.test.ts",
        "test/docs/scenarios.test.ts",
        "test/data-parallel-plan/round-robin.test.ts"
      ]
      // Its name, or as its test says it.
      for (const passed of added.test(files, "round.robin")) expect(passed).toBeGreaterThan(0)
    },
    compiling
  )
})

describeNative("docs/adding-an-algorithm.md, for real", () => {
  it("agrees on both machines", () => {
    const { output, status } = added.run(["bin/exec.js", "agree", "round-robin.yaml", "--json"])
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ decisions: true, values: true, order: true })
  })
})
