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
    "goes on from a snapshot, as every algorithm",
    () => {
      const { output, status } = added.test("test/contract/snapshots.test.ts", "round-robin")
      expect(status, output).toBe(0)
      expect(output).toMatch(/[1-9]\d* passed/u)
    },
    compiling
  )

  it(
    "is documented as it is",
    () => {
      const { output, status } = added.test("test/docs/scenarios.test.ts", "round-robin")
      expect(status, output).toBe(0)
      expect(output).toMatch(/[1-9]\d* passed/u)
    },
    compiling
  )

  it(
    "passes its test",
    () => {
      const { output, status } = added.test("test/data-parallel-plan/round-robin.test.ts")
      expect(status, output).toBe(0)
      expect(output).toMatch(/\d passed/u)
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
