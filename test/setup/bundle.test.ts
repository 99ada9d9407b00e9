// What processes that tests start load instead of packages is what these have.
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { expect, inject, it } from "vitest"
import { type Files, listed } from "./from-bundle.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const bundle = new URL(`../../node_modules/.cache/${inject("nodeOptions").split("?")[1]}/`, import.meta.url)
const files = JSON.parse(readFileSync(new URL(listed, bundle), "utf8")) as Files

/** For each module that a script imports by name: where it comes from, and what it exports. */
const imported = (NODE_OPTIONS: string) => {
  const script = `const found = []
    for (const name of ${JSON.stringify(Object.keys(files))})
      found.push([name, import.meta.resolve(name), Object.keys(await import(name)).filter((one) => one !== "module.exports")])
    console.log(JSON.stringify(found))`
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS }
  })
  expect(stderr).toBe("")
  return JSON.parse(stdout) as ReadonlyArray<readonly [string, string, ReadonlyArray<string>]>
}

it("the bundle of other packages exports what they do", () => {
  const bundled = imported(process.env["NODE_OPTIONS"]!)
  const own = imported("")
  expect(bundled.map(([name]) => name)).toContain("effect/Effect")
  for (const [name, url] of bundled) expect(url, name).toBe(bundle.href + files[name]!)
  for (const [name, url] of own) expect(url, name).not.toContain(bundle.href)
  expect(bundled.map(([name, , names]) => [name, names])).toEqual(own.map(([name, , names]) => [name, names]))
})
