// The rules of the code base that a machine can check, over every TypeScript source; and a file against each rule,
// to see it fail. Native sources: tidy/native.test.ts; pages: tidy/pages.test.ts.
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { addressesIn, loadedBy, longFiles, mergeMarkersIn, rules, shipped } from "./tidy/rules.ts"
import { deadExports, undocumentedExports, unusedAtHome } from "./tidy/exports.ts"
import { functionLinesMax, longFunctions, ownLines } from "./tidy/long-functions.ts"
import { nativeFiles } from "./tidy/native.ts"
import { parse, type Source } from "./tidy/source.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const files = (pattern: string): ReadonlyArray<string> =>
  globSync(pattern, { cwd: root }).map((path) => path.replaceAll("\\", "/"))

const folders = ["core", "scenarios", "sim", "exec", "traces", "testing", "test", "bench", "docs"]
const sources = new Map(
  folders
    .flatMap((folder) => files(`${folder}/**/*.ts`))
    .concat(files("*.ts"))
    .map((path) => [path, parse(path, read(path))])
)
const pages = ["*.md", ...folders.map((folder) => `${folder}/**/*.md`)].flatMap((pattern) => files(pattern))

/** For each rule: files that break it, and files that come close. */
const examples: Readonly<
  Record<
    string,
    {
      readonly breaks: ReadonlyArray<readonly [path: string, text: string]>
      readonly keeps: ReadonlyArray<readonly [path: string, text: string]>
    }
  >
> = {
  layers: {
    breaks: [
      ["core/a.ts", 'import { simulate } from "../sim/simulate.ts"'],
      ["core/a/b.ts", 'import type { Column } from "../../traces/columns.ts"'],
      ["traces/a.ts", 'export * from "../sim/index.ts"'],
      ["traces/a.ts", 'import "../testing/index.ts"'],
      ["sim/a.ts", 'type Lane = import("../exec/lane.ts").Lane'],
      ["sim/cli/a.ts", 'const exec = () => import("../../exec/cli.ts")'],
      ["exec/machine.ts", 'import { Engine } from "../sim/engine/engine.ts"'],
      ["exec/cli/a.ts", 'import { table } from "../../sim/table.ts"'],
      ["scenarios/a.ts", 'import { simulate } from "../sim/simulate.ts"'],
      ["core/a.ts", 'import { Loader } from "../scenarios/load.ts"'],
      ["sim/a.ts", 'import { world } from "../testing/world.ts"'],
      ["testing/a.ts", 'import { it } from "../test/setup/settings.ts"'],
      ["bench/a.ts", 'import "../test/setup/settings.ts"'],
      ["core/a.ts", 'import { simulate } from "tandem/sim"'],
      ["testing/a.ts", 'import { kernels } from "tandem"']
    ],
    keeps: [
      ["core/a.ts", 'import { parse } from "./sim/units.ts"'],
      ["traces/a.ts", 'import { InputError } from "../core/input-error.ts"'],
      ["sim/a.ts", 'import { readProfile } from "../traces/profile-file.ts"'],
      ["exec/cli/both-machines.ts", 'import { simulate } from "../../sim/simulate.ts"'],
      ["exec/a.ts", 'import { Loader } from "../scenarios/load.ts"'],
      ["testing/a.ts", 'import { simulate } from "../sim/simulate.ts"'],
      ["test/a.test.ts", 'import { build } from "../bench/fluid/workloads.ts"'],
      ["docs/examples/a.ts", 'import { kernels } from "tandem"']
    ]
  },
  "core stands alone": {
    breaks: [
      ["core/a.ts", 'import { readFileSync } from "node:fs"'],
      ["core/a.ts", 'import * as fc from "fast-check"']
    ],
    keeps: [
      ["core/a.ts", 'import * as Effect from "effect/Effect"'],
      ["sim/a.ts", 'import { readFileSync } from "node:fs"']
    ]
  },
  "no clock": {
    breaks: [
      ["sim/a.ts", "export const at = Date.now()"],
      ["sim/a.ts", "export const at = new Date()"],
      ["core/a.ts", 'export const at = performance["now"]()'],
      ["core/a.ts", "const { now } = performance"],
      ["sim/study/merge.ts", "process.hrtime.bigint()"],
      ["sim/a.ts", 'import { performance } from "node:perf_hooks"'],
      ["sim/a.ts", 'import * as Clock from "effect/Clock"']
    ],
    keeps: [
      ["scenarios/cli/progress.ts", "const at = performance.now()"],
      ["sim/a.ts", 'const text = "Date.now()" // not performance.now()'],
      ["sim/a.ts", "const at = record.Date"],
      ["traces/a.ts", "const at = Date.now()"]
    ]
  },
  "no chance": {
    breaks: [
      ["core/a.ts", "const x = Math.random()"],
      ["sim/cli/a.ts", "const draw = Math.random"],
      ["sim/a.ts", "globalThis.crypto.randomUUID()"]
    ],
    keeps: [
      ["core/a.ts", "const x = random.uniform() + Math.max(0, 1)"],
      ["test/a.test.ts", "Math.random()"]
    ]
  },
  "no timer": {
    breaks: [
      ["sim/a.ts", "setTimeout(() => {}, 0)"],
      ["core/a.ts", "globalThis.setInterval(tick, 1)"],
      ["sim/a.ts", "const soon = queueMicrotask"],
      ["sim/a.ts", "process.nextTick(tick)"]
    ],
    keeps: [
      ["sim/report/client.ts", 'export const script = "setTimeout(draw, 0)"'],
      ["sim/study/worker.ts", "setImmediate(next)"],
      ["sim/a.ts", "engine.setTimeout(1)"]
    ]
  },
  "no promise": {
    breaks: [
      ["sim/a.ts", "export const run = async () => 1"],
      ["core/a.ts", "export async function* parts() { yield 1 }"],
      ["sim/a.ts", "const { run } = await import('./run.ts')"],
      ["sim/a.ts", "const all = Promise.all([])"],
      ["sim/a.ts", "const later = import('./run.ts')"],
      ["core/a.ts", "Effect.runPromise(effect)"],
      ["core/a.ts", "const read = Effect.tryPromise(() => file)"]
    ],
    keeps: [
      ["sim/cli/a.ts", "export const run = async () => 1"],
      ["traces/a.ts", "export const run = async () => 1"],
      ["sim/a.ts", "const promise = Effect.runSync(effect)"]
    ]
  },
  "times to the last bit": {
    breaks: [
      ["sim/engine/a.ts", "const levels = Math.ceil(Math.log2(n))"],
      ["core/random.ts", "const { sqrt } = Math, normal = Math.cos(2 * Math.PI * u)"],
      ["core/cost/a.ts", "const seconds = base ** exponent"]
    ],
    keeps: [
      ["sim/engine/a.ts", "const norm = Math.sqrt(Math.max(x, y)) / 2"],
      ["core/cost/a.ts", "const step = 2 ** -bits"],
      ["sim/report/scale.ts", "const decade = Math.log10(x)"]
    ]
  },
  "no span in the simulator": {
    breaks: [
      ["sim/a.ts", 'const run = Effect.fn("run")(function* () {})'],
      ["core/a.ts", 'effect.pipe(Effect.withSpan("run"))']
    ],
    keeps: [["sim/a.ts", "const run = Effect.fnUntraced(function* () {})"]]
  },
  "no barrel of effect": {
    breaks: [
      ["sim/cli.ts", 'import { Effect } from "effect"'],
      ["test/a.test.ts", 'const load = () => import("effect")']
    ],
    keeps: [["sim/cli.ts", 'import * as Effect from "effect/Effect"']]
  },
  "no loose types": {
    breaks: [
      ["core/a.ts", "export const f = (x: any) => x"],
      ["test/a.test.ts", "const x = value as unknown as Array<any>"],
      ["bench/a.ts", "enum Lane { compute }"],
      ["traces/a.ts", "declare namespace Arrow {}"],
      ["traces/a.ts", "declare module Arrow {}"],
      ["sim/a.ts", `// @ts-${"ignore"}\nexport const x: number = text`]
    ],
    keeps: [
      ["core/a.ts", "// any enum of a namespace\nexport const any = (x: unknown) => x"],
      ["core/a.ts", "declare global { interface Array<T> {} }"],
      ["test/a.ts", 'declare module "vitest" { interface ProvidedContext {} }']
    ]
  },
  "imports name files": {
    breaks: [
      ["core/a.ts", 'import { b } from "./b"'],
      ["core/a.ts", 'import { b } from "./b.js"']
    ],
    keeps: [["core/a.ts", 'import { b } from "./b.ts"']]
  },
  "one concept a file": {
    breaks: [
      ["core/a.ts", "//\n".repeat(501)],
      ["sim/engine/max-min.ts", "//\n".repeat(621)]
    ],
    keeps: [
      ["core/a.ts", "//\n".repeat(500)],
      ["sim/engine/max-min.ts", "//\n".repeat(620)]
    ]
  },
  "one thought a function": {
    breaks: [
      ["core/a.ts", `export const f = () => {\n${"f()\n".repeat(100)}}`],
      ["core/a.ts", `export const f = Effect.gen(() => {\nconst g = () => {\n${"f()\n".repeat(100)}}\n})`],
      ["core/a.ts", `export const f = () => gen(function* () {\n${"f()\n".repeat(100)}})`],
      ["exec/cli/main.ts", `function f() {\n${"f()\n".repeat(170)}}`]
    ],
    keeps: [
      ["core/a.ts", `export const f = () => {\n${"f()\n".repeat(98)}}`],
      ["core/a.ts", `const f = () => {\n${`const g = () => {\n${"f()\n".repeat(60)}}\n`.repeat(3)}}`],
      ["exec/cli/main.ts", `function f() {\n${"f()\n".repeat(160)}}`]
    ]
  },
  "files say what they are for": {
    breaks: [["sim/a.ts", "export const a = 1 // one"]],
    keeps: [
      ["sim/a.ts", "// One.\nexport const a = 1"],
      ["bench/a.ts", "#!/usr/bin/env node\n// One."]
    ]
  },
  "names of files": {
    breaks: [
      ["core/utils.ts", ""],
      ["sim/helpers/a.ts", ""],
      ["testing/types.ts", ""]
    ],
    keeps: [["core/units.ts", ""]]
  },
  "results leave by one door": {
    breaks: [
      ["sim/cli/a.ts", 'console.log("done")'],
      ["core/a.ts", "queue.forEach(console.error)"]
    ],
    keeps: [
      ["bench/a.ts", 'console.log("done")'],
      ["sim/a.ts", "this.console.log(1)"]
    ]
  },
  "every test runs": {
    breaks: [
      ["test/a.test.ts", 'it.only("x", () => {})'],
      ["test/a.test.ts", 'describe.skip("x", () => {})'],
      ["test/a.test.ts", 'it.concurrent.skip("x", () => {})'],
      ["test/a.test.ts", 'test.todo("x")']
    ],
    keeps: [
      ["test/a.test.ts", 'it.each([1])("%s", () => {})'],
      ["test/a.test.ts", 'context.skip("no browser")'],
      ["test/a.test.ts", 'describe.skipIf(recording)("x", () => {})'],
      ["sim/a.ts", "list.skip()"]
    ]
  },
  "properties take their time": {
    breaks: [
      ["test/a.test.ts", 'it("holds", () => { fc.assert(always) }, 60_000)'],
      ["test/a.test.ts", 'it("holds", { timeout: 60_000 }, async () => { await fc.check(always) })'],
      ["test/a.test.ts", 'it("agrees", async () => { await checkAgreement({}) }, 240_000)']
    ],
    keeps: [
      ["test/a.test.ts", 'it("holds", () => { fc.assert(always, { numRuns: 60_000 }) })'],
      ["test/a.test.ts", 'it("is quick", () => { run() }, 60_000)']
    ]
  },
  "nothing left to do": {
    breaks: [["sim/a.ts", `// ${"TO"}${"DO"}: later`]],
    keeps: [["sim/a.ts", "// to do"]]
  }
}

describe("every source", () => {
  it("is looked at", () => {
    expect(sources.size).toBeGreaterThan(200)
    for (const folder of ["core", "scenarios", "sim", "traces", "testing", "test", "bench"])
      expect([...sources.keys()].some((path) => path.startsWith(`${folder}/`))).toBe(true)
  })

  for (const { name, instead, holdsFor, check } of rules) {
    it(name, () => {
      const found = [...sources.values()]
        .filter(({ path }) => holdsFor(path))
        .flatMap((source) => check(source).map(({ line, what }) => `${source.path}:${line}: ${what}`))
      expect(found, `Instead: ${instead}`).toEqual([])
    })
  }
})

describe("every rule can fail", () => {
  it("has examples", () => {
    expect(Object.keys(examples)).toEqual(rules.map(({ name }) => name))
  })

  for (const { name, holdsFor, check } of rules) {
    const findings = ([path, text]: readonly [string, string]) =>
      holdsFor(path) ? check(parse(path, text)) : []
    it(name, () => {
      const { breaks, keeps } = examples[name]!
      for (const example of breaks) expect(findings(example).length, example.join(": ")).toBeGreaterThan(0)
      for (const example of keeps) expect(findings(example), example.join(": ")).toEqual([])
    })
  }
})

describe("the allowance for long files", () => {
  it("is for files that exist and need it", () => {
    for (const [path, { because }] of Object.entries(longFiles)) {
      expect(sources.get(path)?.text.split("\n").length, path).toBeGreaterThan(500)
      expect(because).not.toBe("")
    }
  })
})

describe("the allowance for long functions", () => {
  it("is for files that exist and need it", () => {
    for (const [path, { because }] of Object.entries(longFunctions)) {
      const source = sources.get(path)
      expect(source, path).toBeDefined()
      expect(Math.max(...ownLines(source!).values()), path).toBeGreaterThan(functionLinesMax)
      expect(because).not.toBe("")
    }
  })
})

describe("the command line", () => {
  const sourceOf = (path: string): Source => sources.get(path)!
  const heavy = (path: string): boolean => /^(?:effect|apache-arrow|yaml|fast-check)(?:\/|$)/u.test(path)

  it("shows its help without loading what a command needs", () => {
    expect([...loadedBy("sim/cli.ts", sourceOf)].filter(heavy)).toEqual([])
  })

  it("loads no fast-check and, to run a scenario, no HTML report", () => {
    const loaded = loadedBy("sim/cli/run-command.ts", sourceOf)
    expect(loaded).toContain("effect/Effect")
    expect(loaded).not.toContain("fast-check")
    expect(loaded).not.toContain("sim/report/page.ts")
  })

  it("would be found out", () => {
    const made: Readonly<Record<string, string>> = {
      "a.ts": 'import type { X } from "./x.ts"\nimport { b } from "./b.ts"\nconst c = () => import("./c.ts")',
      "b.ts": 'export { load } from "effect/Effect"'
    }
    const loaded = loadedBy("a.ts", (path) => parse(path, made[path]!))
    expect([...loaded]).toEqual(["a.ts", "b.ts", "effect/Effect"])
  })
})

describe("what is exported", () => {
  it("is imported somewhere, or by whoever takes the package", () => {
    const found = deadExports([...sources.values()], () => true)
    expect(found, "Instead: no export, or no such thing").toEqual([])
  })

  it("is used in what ships: a test may look at a part, but nothing is there for tests alone", () => {
    const outside = [...sources.values()].filter(({ path }) => !path.startsWith("test/"))
    const found = unusedAtHome(deadExports(outside, shipped), read)
    expect(found, "Instead: in the test that needs it").toEqual([])
  })

  it("would be found out", () => {
    const text = "export const one = 1\nexport const two = 2\nconst three = two"
    expect(unusedAtHome(["core/a.ts: one", "core/a.ts: two"], () => text)).toEqual(["core/a.ts: one"])
    const made = [
      parse(
        "core/a.ts",
        "export const one = 1, two = 2\nexport interface Three {}\nconst four = 4\nexport { four }"
      ),
      parse("core/index.ts", 'export { two } from "./a.ts"\nexport const five = 5'),
      parse("core/b.ts", 'import type { Three } from "./a.ts"\nexport class Six {}'),
      parse("core/c.ts", 'const all = () => import("./b.ts")')
    ]
    expect(deadExports(made, shipped)).toEqual(["core/a.ts: one", "core/a.ts: four"])
  })

  it("says what it is, where the package offers it", () => {
    expect(undocumentedExports([...sources.values()]), "Instead: a line above it").toEqual([])
    const made = [
      parse("core/index.ts", 'export { one, Two } from "./a.ts"\nexport type { Three } from "./a.ts"'),
      parse(
        "core/a.ts",
        "/** One. */\nexport const one = 1\n/** Of it. */\nconst four = 4\nexport const Two = four\nexport interface Three {}\nexport const five = 5"
      )
    ]
    expect(undocumentedExports(made)).toEqual(["core/a.ts: Two", "core/a.ts: Three"])
  })
})

describe("package-lock.json", () => {
  it("works behind any mirror: it names no registry", () => {
    const lockfile = read("package-lock.json")
    expect(addressesIn(lockfile), "Instead: npm install with this folder's .npmrc").toEqual([])
    const named = lockfile.replace('"version":', '"resolved": "https://registry.npmjs.org/a.tgz", "version":')
    expect(addressesIn(named)).toEqual(["https://registry.npmjs.org/a.tgz"])
  })
})

describe("a merge", () => {
  it("is finished: nobody's markers are left", () => {
    const texts = [...pages, ...sources.keys(), ...files("scenarios/**/*.yaml"), ...files(nativeFiles)]
    const marked = texts.filter((path) => mergeMarkersIn(read(path)).length > 0)
    expect(marked, "Instead: what both sides mean, without the markers").toEqual([])
    const left = [
      "<".repeat(7) + " HEAD",
      "one",
      "=".repeat(7),
      "other",
      ">".repeat(7) + " 913b252 (Document)"
    ]
    expect(mergeMarkersIn(left.join("\n"))).toEqual([left[0], left[2], left[4]])
    expect(mergeMarkersIn("a heading\n=========\n")).toEqual([])
  })
})
