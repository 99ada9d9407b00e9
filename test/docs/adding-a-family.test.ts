// docs/adding-a-family.md: its code makes a family of one new folder and one list, on both machines.
import { afterAll, describe, expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { Added, compiling } from "./added.ts"

const added = new Added("docs/adding-a-family.md")

afterAll(() => added.remove())

describe("docs/adding-a-family.md", () => {
  it("touches one new folder, one list and its test", () => {
    expect(added.touched).toEqual({
      folders: ["scenarios/families/ping-pong", "test/ping-pong"],
      changed: ["scenarios/families.ts"]
    })
  })

  it("compiles", () => expect(added.compile()).toBe(""), compiling)

  it("shows what is said", () => {
    expect(added.shown).toHaveLength(1)
    for (const { command, output } of added.shown) expect(added.run(command)).toEqual({ status: 0, output })
  })

  it("is simulated", () => {
    const { output, status } = added.run(["bin/sim.js", "run", "ping-pong.yaml", "--json"])
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ task: "ping-pong", algorithm: "whole", ranks: 2, steps: 4 })
  })

  it("is swept by a study", () => {
    const { output, status } = added.run(["bin/sim.js", "study", "ping-pong-study.yaml", "--json"])
    expect(status, output).toBe(0)
    const { rows } = JSON.parse(output) as { readonly rows: ReadonlyArray<{ readonly digest: string }> }
    expect(new Set(rows.map(({ digest }) => digest)).size).toBe(4)
  })

  it(
    "passes its test",
    () => {
      for (const passed of added.test(["test/ping-pong/family.test.ts"])) expect(passed).toBeGreaterThan(0)
    },
    compiling
  )
})

describeNative("docs/adding-a-family.md, for real", () => {
  it("agrees on both machines", () => {
    const { output, status } = added.run(["bin/exec.js", "agree", "ping-pong.yaml", "--json"])
    expect(status, output).toBe(0)
    expect(JSON.parse(output)).toMatchObject({ decisions: true, values: true, order: true })
  })
})
