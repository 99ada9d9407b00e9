// docs/adding-an-algorithm.md: its code makes an algorithm of one new folder and one line of a list, everywhere at once.
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { Added } from "./added.ts"

const added = new Added("docs/adding-an-algorithm.md")
const require = createRequire(import.meta.url)
const packageOf = (name: string): string => dirname(require.resolve(`${name}/package.json`))

/** A compiler or a test runner of its own, beside everything else that runs. */
const compiling = 240_000

afterAll(() => added.remove())

describe("docs/adding-an-algorithm.md", () => {
  it("touches one new folder, one list and its test", () => {
    expect(added.touched).toEqual({
      folders: ["core/algorithms/data-parallel/round-robin", "test/data-parallel-plan"],
      changed: ["core/algorithms/data-parallel/algorithms.ts"]
    })
  })

  it(
    "compiles",
    () => {
      const { output, status } = added.run(join(packageOf("typescript"), "bin/tsc"), "-p", ".")
      expect(output).toBe("")
      expect(status).toBe(0)
    },
    compiling
  )

  it("shows what sim schedule says", () => {
    const shown = /^```\n\$ sim schedule round-robin\.yaml\n(.*?)^```$/msu.exec(added.page)![1]!
    const { output, status } = added.run("bin/sim.js", "schedule", "round-robin.yaml")
    expect(output).toBe(shown)
    expect(status).toBe(0)
  })

  it("runs, warns and is compared by the name that papers have", () => {
    const { output, status } = added.run("bin/sim.js", "run", "round-robin.yaml", "--json")
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ algorithm: "round-robin", steps: 4, warmupSteps: 2 })
  })

  it(
    "passes its test, and is drawn where every algorithm is",
    () => {
      const { output, status } = added.run(
        join(packageOf("vitest"), "vitest.mjs"),
        "run",
        "test/data-parallel-plan/round-robin.test.ts",
        "--maxWorkers=1"
      )
      expect(status, output).toBe(0)
      expect(output).toMatch(/2 passed/u)
    },
    compiling
  )
})

describeNative("docs/adding-an-algorithm.md, for real", () => {
  it("agrees on both machines", () => {
    const { output, status } = added.run("bin/exec.js", "agree", "round-robin.yaml", "--json")
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ decisions: true, values: true, order: true })
  })
})
