// docs/scenarios.md against the schemas: every field that a file may have is in the pages, with the defaults that decoding gives.
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { defaultsOf } from "../../core/algorithms/algorithm.ts"
import { dataParallelAlgorithms } from "../../core/algorithms/data-parallel/algorithms.ts"
import { tasks } from "../../scenarios/families.ts"
import type { Shape } from "../../scenarios/file/shape.ts"
import { shapeFor } from "../../scenarios/scenario-file.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const page = readFileSync(join(root, "docs/scenarios.md"), "utf8")
const pages = globSync("docs/*.md", { cwd: root })
  .map((name) => readFileSync(join(root, name), "utf8"))
  .join("\n")

/** Names of all fields that a file of this shape may have, at any depth. */
const namesIn = (shape: Shape, path = ""): ReadonlyArray<string> => {
  switch (shape.kind) {
    case "fields":
      return [...shape.fields].flatMap(([name, { shape: inner }]) =>
        // A study's fields are of docs/cli.md.
        path === "" && name === "study" ? [name] : [name, ...namesIn(inner, `${path}.${name}`)]
      )
    case "choice":
      return shape.options.flatMap((option) => namesIn(option, path))
    case "list":
      return namesIn(shape.item, path)
    case "record":
      return namesIn(shape.value, path)
    case "value":
      return []
  }
}

/** Words of what is set as code, in a line or in a block. */
const quoted = (text: string): ReadonlySet<string> =>
  new Set(
    text.split(/^ *```/mu).flatMap((part, index) => {
      const code = index % 2 === 1 ? [part] : [...part.matchAll(/`([^`\n]+)`/gu)].map(([, inline]) => inline!)
      return code.flatMap((each) => each.split(/\W+/u))
    })
  )

describe("docs/scenarios.md", () => {
  it("has every field of data-parallel training", () => {
    const known = quoted(page)
    const names = new Set(namesIn(shapeFor({ task: "data-parallel" })))
    expect(names.size).toBeGreaterThan(100)
    expect([...names].filter((name) => !known.has(name))).toEqual([])
  })

  it.each(tasks)("or another page has every field of %s", (task) => {
    const known = quoted(pages)
    expect([...new Set(namesIn(shapeFor({ task })))].filter((name) => !known.has(name))).toEqual([])
  })

  it.each(dataParallelAlgorithms.map((algorithm) => [algorithm.name, algorithm] as const))(
    "has the settings of %s as they are by default",
    (name, { settings }) => {
      const lines = page.split("\n")
      const at = lines.findIndex((line) => line.startsWith(`| \`${name}\` |`))
      const own = Object.entries(defaultsOf(settings)).filter(([field]) => field !== "name")
      expect(own.length).toBeGreaterThan(0)
      const row = lines[at]!
      // What a row has in common with the one above it is said there.
      const said = row.includes("as above") ? `${lines[at - 1]} ${row}` : row
      for (const [field, value] of own)
        expect(said).toContain(
          `\`${field}: ${field.endsWith("Bytes") ? `${Number(value) / 2 ** 20}MiB` : String(value)}\``
        )
    }
  )
})
