// docs/testing.md: the code it shows is the example's, and the outcome it shows is what the example comes to.
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, describe, expect, it } from "vitest"

import { onBoth } from "../../docs/examples/both-machines.ts"
import { check, corrected, firstAttempt, keepsTheLaws } from "../../docs/examples/staggered.ts"
import { root, sim } from "../cli/launch.ts"
import { describeNative } from "../native/addon.ts"

const page = readFileSync(join(root, "docs/testing.md"), "utf8")
const example = ["staggered", "both-machines"]
  .map((name) => readFileSync(join(root, `docs/examples/${name}.ts`), "utf8"))
  .join("")
const folder = mkdtempSync(join(tmpdir(), "tandem-docs-"))

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Fenced blocks of one language, in order. */
const blocks = (language: string): ReadonlyArray<string> =>
  [...page.matchAll(/^```(\w*)\n(.*?)^```$/gmsu)]
    .filter((match) => match[1] === language)
    .map((match) => match[2]!.trim())

const regions = [...example.matchAll(/^\/\/ #region \w+\n(.*?)^\/\/ #endregion$/gmsu)].map((match) =>
  match[1]!.trim()
)

/** A path names every step of the search for a small case: it changes with the generators, what it leads to does not. */
const withoutPath = (text: string): string => text.replace(/path "[\d:]+"/u, 'path "..."').trim()

describe("docs/testing.md", () => {
  it("shows the example as it is", () => {
    expect(regions).toHaveLength(5)
    expect(blocks("ts")).toEqual(regions)
  })

  it("shows the counterexample that is found, and sim run accepts its file", () => {
    const { failed, failure, file } = check(firstAttempt, folder)
    expect(failed).toBe(true)
    expect(blocks("")).toEqual([failure])
    const saved = readFileSync(file!, "utf8")
    expect(blocks("yaml").map(withoutPath)).toEqual([withoutPath(saved)])
    const { status, stdout, stderr } = sim("run", file!, "--json")
    expect(stderr).toBe("")
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ algorithm: "local-sgd", ranks: 1 })
  })

  it("is right that the corrected scheduler passes", () => {
    const { failed, failure, numRuns } = check(corrected, folder)
    expect(failure).toBeUndefined()
    expect(failed).toBe(false)
    expect(numRuns).toBeGreaterThanOrEqual(200)
    keepsTheLaws()
  })
})

describeNative("docs/testing.md, for real", () => {
  it("is right that both machines agree", async () => {
    expect(await Effect.runPromise(onBoth(corrected))).toMatchObject({
      decisions: true,
      values: true,
      order: true,
      firstDisagreement: undefined
    })
  })
})
