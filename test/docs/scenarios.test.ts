// docs/scenarios.md and the pages of tasks against the schemas: every field that a file may have is in them, with the defaults that
// decoding gives.
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { defaultsOf } from "../../core/algorithms/algorithm.ts"
import { dataParallelAlgorithms } from "../../core/algorithms/data-parallel/algorithms.ts"
import { tasks } from "../../scenarios/families.ts"
import { isRecord, type Shape } from "../../scenarios/file/shape.ts"
import { loadScenario, shapeFor } from "../../scenarios/scenario-file.ts"
import { scenarioFile } from "../scenario/files.ts"

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
      expect(at, `a row of ${name} in docs/scenarios.md`).toBeGreaterThanOrEqual(0)
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

describe("the page of a task", () => {
  // As little as a file may say.
  const least = {
    "moe-training": {
      model: { layers: 1, width: 8, hidden: 8, heads: 1, sequence: 4 },
      world: { ranks: 1 },
      algorithm: "tutel"
    },
    "expert-offload": {
      model: { like: "mixtral-8x7b" },
      routing: { statistics: {} },
      cache: { slotsPerLayer: 2 },
      algorithm: "lru"
    },
    "kv-serving": {
      model: { layers: 1, width: 8, heads: 1, ffnWidth: 8 },
      algorithm: "full",
      requests: { prompt: 8, output: 2 }
    }
  }

  /** Paths of what is in one and not in the other. */
  const added = (whole: object, part: unknown, path = ""): ReadonlyArray<string> =>
    Object.entries(whole).flatMap(([name, value]: [string, unknown]) => {
      const before: unknown = Reflect.get(Object(part), name)
      if (isRecord(value)) return added(value, before, `${path}${name}.`)
      return before === undefined ? [`${path}${name}`] : []
    })

  /** The default of each field of a page's table, whose row may name several of one section and has as many. */
  const statedIn = (name: string): ReadonlyMap<string, string> => {
    const text = readFileSync(join(root, "docs", name), "utf8")
    const [, fields] = /^#+ Fields\n(.*?)^#+ /msu.exec(text)!
    return new Map(
      [...fields!.matchAll(/^\| (`.*?) \| (.*?) \|/gmu)].flatMap(([, names, values]) => {
        const [first, ...others] = [...names!.matchAll(/`([\w.]+)`/gu)].map(([, path]) => path!)
        const section = first!.slice(0, first!.lastIndexOf(".") + 1)
        const each = values!.split(", ")
        return [first!, ...others.map((other) => section + other)].map(
          (path, at) => [path, each[at] ?? each[0]!] as const
        )
      })
    )
  }

  // Those of the expression are of all tasks, of a section that has a table of its own, or a file, which is named from elsewhere.
  it.each([
    ["moe-training", /^(?:costs\.|world\.|faults|jitter|network|seed|algorithm\.)/u],
    ["expert-offload", /^(?:costs|jitter|seed|algorithm\.)/u],
    ["kv-serving", /^(?:faults|jitter|network|seed|algorithm\.)/u]
  ] as const)("has the fields of %s as they are by default", (task, elsewhere) => {
    const stated = statedIn(`${task}.md`)
    const scenario = { task, name: "least", ...least[task] }
    const file = scenarioFile(JSON.stringify(scenario))
    const read = (...sets: ReadonlyArray<string>) => Effect.runSync(loadScenario(file, sets))
    const usual = read()
    const paths = added(usual, scenario).filter((path) => !elsewhere.test(path))
    expect(paths.length).toBeGreaterThan(5)
    for (const path of paths) {
      const value = stated.get(path)
      expect(value, path).toBeDefined()
      expect(read(`${path}=${value}`), path).toEqual(usual)
    }
  })
})
