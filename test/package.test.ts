// The published package, as someone meets it who installs it: packed, installed into a folder of its own, run, imported and
// type-checked there. Its dependencies are linked from here, so that nothing is downloaded.
import { execFileSync, spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("..", import.meta.url))
const folder = mkdtempSync(join(tmpdir(), "tandem-package-"))
const consumer = join(folder, "consumer")
const installed = join(consumer, "node_modules", "tandem")
const inPackage = (path: string): string => join("node_modules", "tandem", path)

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>
  readonly optionalDependencies: Readonly<Record<string, string>>
  readonly exports: Readonly<Record<string, unknown>>
}
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest

/** As someone has it who installs the package: what tests load processes from is not there. */
const environment = { ...process.env, NODE_OPTIONS: "" }

const npm = (cwd: string, ...args: ReadonlyArray<string>): void => {
  execFileSync("npm", [...args, "--loglevel=error"], {
    cwd,
    stdio: ["ignore", "ignore", "pipe"],
    // A cache of its own: what a machine happens to have cached must not make the difference.
    // The addon's build takes long, and has its own tests.
    env: { ...environment, npm_config_cache: join(folder, "cache"), TANDEM_NATIVE: "skip" }
  })
}

const run = (node: string, ...args: ReadonlyArray<string>) => {
  const { status, stdout, stderr } = spawnSync(node, args, {
    cwd: consumer,
    encoding: "utf8",
    env: environment
  })
  return { status, stdout, stderr }
}
const sim = (...args: ReadonlyArray<string>) =>
  run(process.execPath, join("node_modules", ".bin", "sim"), ...args)

const link = (name: string): void => {
  const here = join(root, "node_modules", name)
  if (existsSync(here)) symlinkSync(here, join(consumer, "node_modules", name), "dir")
}

beforeAll(() => {
  npm(root, "pack", "--pack-destination", folder)
  mkdirSync(join(consumer, "node_modules"), { recursive: true })
  writeFileSync(join(consumer, "package.json"), '{ "name": "consumer", "private": true, "type": "module" }')
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) link(name)
  const [tarball] = readdirSync(folder).filter((name) => name.endsWith(".tgz"))
  npm(consumer, "install", "--offline", "--no-save", "--no-audit", "--no-fund", join(folder, tarball!))
  mkdirSync(join(consumer, "node_modules", "@types"))
  link("@types/node")
})

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

describe("the package", () => {
  it("takes a newer fast-check than its own, of which whoever tests with it has one: two copies' types do not fit", () => {
    expect(manifest.dependencies["fast-check"]).toMatch(/^\^\d+\.\d+\.\d+$/u)
  })

  it("holds what it runs from, its data and its documentation, and no sources", () => {
    const files = readdirSync(installed, { recursive: true, encoding: "utf8" })
    expect(files).toEqual(
      expect.arrayContaining([
        "LICENSE",
        "README.md",
        "bin/sim.js",
        "dist/sim/study/worker.js",
        "docs/cli.md",
        "scenarios/geo-gpt2.yaml",
        "traces/profiles/gpt2-h200.arrow"
      ])
    )
    const sources = files.filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
    expect(sources.filter((file) => !file.startsWith("docs/examples/"))).toEqual([])
    expect(files.filter((file) => /^(?:dist\/)?(?:test|bench|node_modules)(?:\/|$)/u.test(file))).toEqual([])
    for (const file of files.filter((name) => name.endsWith(".d.ts")))
      expect(existsSync(join(installed, file.replace(/\.d\.ts$/u, ".js"))), file).toBe(true)
  })

  it("holds all that the native addon is built from, and nothing that was built", () => {
    const native = (folder: string) =>
      readdirSync(join(folder, "native"), { recursive: true, encoding: "utf8" })
        .filter(
          (file) => !/^(?:build|test)(?:\/|$)/u.test(file) && !file.endsWith(".md") && file.includes(".")
        )
        .toSorted()
    expect(native(installed)).toEqual(native(root))
    expect(native(installed)).toEqual(
      expect.arrayContaining(["CMakeLists.txt", "addon.cc", "cpu/gemm.fma.cc"])
    )
    expect(existsSync(join(installed, "native", "build"))).toBe(false)
  })

  it("runs a scenario that ships with it, to the same digest as the sources", () => {
    const { status, stdout, stderr } = sim("run", inPackage("scenarios/geo-gpt2.yaml"), "--json")
    expect(stderr).toBe("")
    expect(status).toBe(0)
    const here = spawnSync(process.execPath, ["bin/sim.js", "run", "scenarios/geo-gpt2.yaml", "--json"], {
      cwd: root,
      encoding: "utf8"
    })
    expect((JSON.parse(stdout) as { digest: string }).digest).toBe(
      (JSON.parse(here.stdout) as { digest: string }).digest
    )
  })

  it("runs a study on threads and writes its report", () => {
    const axes = "study.axes={world.links.wan.bandwidth: [1Gbit/s, 10Gbit/s], algorithm: [s-sgd, diloco]}"
    const study = ["study", inPackage("scenarios/geo-gpt2-bandwidth.yaml"), "--set", axes]
    const { status, stderr } = sim(...study, "--jobs", "2", "--out", "out")
    expect(status, stderr).toBe(0)
    expect(readdirSync(join(consumer, "out"))).toEqual(
      expect.arrayContaining(["report.html", "study.arrow", "study.csv"])
    )
  })

  it("finds the tables it validates against", () => {
    const { status, stderr } = sim("validate", "dreamddp-resnet18")
    expect(stderr).toBe("")
    expect(status).toBe(0)
  })

  it("says how its addon is built, by a command that is there where it is installed", () => {
    const { status, stdout } = run(process.execPath, join("node_modules", ".bin", "tandem-exec"), "info")
    expect(status).toBe(1)
    const command = /then run "npm (run build:native --prefix .*)"$/mu.exec(stdout)?.[1]
    expect(command, stdout).toBeDefined()
    // To build nothing, as here, is no success.
    expect(() => npm(consumer, ...command!.split(" "))).toThrow(/skipped, as TANDEM_NATIVE says/u)
  })

  it("starts under an older Node, with the one that npm brought", (context) => {
    const old = olderNode()
    if (old === undefined) return context.skip("no Node 20 or 21 on PATH")
    const { status, stdout, stderr } = run(old, inPackage("bin/sim.js"), "--version")
    expect(stderr).toBe("")
    expect(status).toBe(0)
    expect(stdout).toMatch(/^\d+\.\d+\.\d+/u)
  })
})

describe("the entry points", () => {
  const entries = [
    "tandem",
    "tandem/sim",
    "tandem/exec",
    "tandem/traces",
    "tandem/scenarios",
    "tandem/testing"
  ]

  it("are those of the manifest", () => {
    const named = Object.keys(manifest.exports).map((name) => name.replace(/^\./u, "tandem"))
    expect(named).toEqual([...entries, "tandem/package.json"])
  })

  it("work when imported", () => {
    writeFileSync(join(consumer, "use.ts"), use)
    const { status, stdout, stderr } = run(process.execPath, "use.ts")
    expect(stderr).toBe("")
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toEqual({
      kernel: "all_reduce",
      layers: 152,
      ranks: 8,
      failed: false,
      forgetful: "property synchronisesEveryLayer"
    })
  })

  it("have types: right use passes, wrong use does not", () => {
    writeFileSync(join(consumer, "use.ts"), use)
    writeFileSync(join(consumer, "misuse.ts"), misuse)
    copyFileSync(join(root, "docs/examples/staggered.ts"), join(consumer, "staggered.ts"))
    writeFileSync(join(consumer, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }))
    const errors = typeErrors()
    expect(errors.map((line) => line.replace(/,\d+\).*/u, ")"))).toEqual([
      "misuse.ts(5)",
      "misuse.ts(6)",
      "misuse.ts(7)",
      "misuse.ts(8)"
    ])
  })

  it("have types that need none of Node's", () => {
    writeFileSync(join(consumer, "use.ts"), use)
    const options = { ...compilerOptions, types: [] }
    writeFileSync(
      join(consumer, "tsconfig.json"),
      JSON.stringify({ compilerOptions: options, include: ["use.ts"] })
    )
    expect(typeErrors()).toEqual([])
  })
})

/** What the compiler says of the consumer's files. */
const typeErrors = (): ReadonlyArray<string> => {
  const compiler = createRequire(import.meta.url).resolve("typescript/package.json")
  const tsc = join(dirname(compiler), "bin", "tsc")
  const { stdout } = run(process.execPath, tsc, "-p", ".", "--pretty", "false")
  return stdout.split("\n").filter((line) => /error TS/u.test(line))
}

const compilerOptions = {
  module: "nodenext",
  target: "es2024",
  lib: ["es2024", "dom"],
  types: ["node"],
  strict: true,
  exactOptionalPropertyTypes: true,
  noEmit: true
}

/** What someone writes who uses the package: every entry point, the types of each. */
const use = `import { kernels, Machine } from "tandem"
import { Loader, loadScenario } from "tandem/scenarios"
import { runScenario } from "tandem/sim"
import { checkScheduler, scenario, synchronisesEveryLayer, type Scheduler } from "tandem/testing"
import { readProfile } from "tandem/traces"
import * as Effect from "effect/Effect"

const package_ = "node_modules/tandem"
const profile = await Effect.runPromise(readProfile(package_ + "/traces/profiles/gpt2-h200.arrow"))
const file = package_ + "/scenarios/geo-gpt2.yaml"
const run = await Effect.runPromise(
  Effect.flatMap(loadScenario(file, ["steps=1"]), (loaded) => runScenario(loaded, file, { loader: new Loader() }))
)
const own: Scheduler = ({ model, planned, steps }) => planned.program(model, steps)
const scenarios = scenario({ algorithms: ["ddp"], maxFaults: 0 })
const properties = { synchronisesEveryLayer: synchronisesEveryLayer() }
const good = checkScheduler(own, { scenarios, properties, numRuns: 5, seed: 1, saveTo: null })
const forgetful: Scheduler = ({ model, steps }) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { layers } = yield* model
    for (let step = 0; step < steps; step++) {
      for (const { forward } of layers) for (const op of forward) machine.submit(op)
      yield* machine.endStep
    }
  })
const bad = checkScheduler(forgetful, { scenarios, properties, numRuns: 50, seed: 1, saveTo: null })
console.log(
  JSON.stringify({
    kernel: kernels.all_reduce.name,
    layers: profile.layers.length,
    ranks: run.result.ranks,
    failed: good.failed,
    forgetful: bad.failure?.split(":")[0]
  })
)
`

const misuse = `import { kernels } from "tandem"
import { runScenario } from "tandem/sim"
import { checkScheduler } from "tandem/testing"
import { readProfile } from "tandem/traces"
export const name: number = kernels.all_reduce.name
export const run = runScenario("scenario.yaml")
export const details = checkScheduler((context) => context.nothing)
export const profile = readProfile(1)
`

/** A Node on PATH that is too old to run the package by itself. */
function olderNode(): string | undefined {
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .map((path) => join(path, "node"))
    .find((node) => {
      if (!existsSync(node)) return false
      const { stdout } = spawnSync(node, ["-p", "process.versions.node"], {
        encoding: "utf8",
        env: environment
      })
      return /^2[01]\./u.test(stdout)
    })
}
