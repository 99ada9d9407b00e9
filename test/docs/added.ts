// A copy of the repository with the code of a how-to page in it: what the page adds is what is added, and nothing else.
import { spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

const require = createRequire(import.meta.url)
const packageOf = (name: string): string => dirname(require.resolve(`${name}/package.json`))

/** A compiler or a test runner of its own, beside everything else that runs, takes so long at most. */
export const compiling = 240_000

/** What a page shows: a file to write, or lines to change in one that is there. */
interface Block {
  readonly language: string
  readonly path: string
  readonly text: string
}

/** What vitest writes, as far as it is read here. */
interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly assertionResults: ReadonlyArray<{ readonly status: string }>
  }>
}

export class Added {
  readonly folder = mkdtempSync(join(tmpdir(), "tandem-added-"))
  readonly page: string
  readonly blocks: ReadonlyArray<Block>

  constructor(page: string) {
    this.page = readFileSync(join(root, page), "utf8")
    this.blocks = [...this.page.matchAll(/^```(\w+) (\S+)\n(.*?)^```$/gmsu)].map(
      ([, language, path, text]) => ({
        language: language!,
        path: path!,
        text: text!
      })
    )
    for (const name of ["core", "traces", "scenarios", "sim", "exec", "testing", "bin", "test", "docs"])
      cpSync(join(root, name), join(this.folder, name), {
        recursive: true,
        filter: (path) => !/\/(?:test\/fixtures|docs\/images)/u.test(path)
      })
    for (const name of ["package.json", "tsconfig.json", "vitest.config.ts"])
      cpSync(join(root, name), join(this.folder, name))
    for (const name of ["node_modules", "native", "bench"])
      symlinkSync(join(root, name), join(this.folder, name))
    for (const { language, path, text } of this.blocks) {
      const to = join(this.folder, path)
      if (language === "diff") writeFileSync(to, changed(readFileSync(to, "utf8"), text))
      else {
        if (existsSync(to)) throw new Error(`${path} is there already`)
        mkdirSync(dirname(to), { recursive: true })
        writeFileSync(to, text)
      }
    }
  }

  /** Folders that files are new in, and files that are changed. */
  get touched(): { readonly folders: ReadonlyArray<string>; readonly changed: ReadonlyArray<string> } {
    const code = this.blocks.filter(({ language }) => language === "ts")
    return {
      folders: [...new Set(code.map(({ path }) => dirname(path)))],
      changed: this.blocks.filter(({ language }) => language === "diff").map(({ path }) => path)
    }
  }

  /** Commands of `sim` and `exec` that the page shows, each with what it shows of them. */
  get shown(): ReadonlyArray<{ readonly command: ReadonlyArray<string>; readonly output: string }> {
    return [...this.page.matchAll(/^```\n\$ (\w+) ([^\n]*)\n(.*?)^```$/gmsu)].map(
      ([, program, rest, output]) => ({
        command: [`bin/${program}.js`, ...rest!.split(" ")],
        output: output!
      })
    )
  }

  /** Runs a command in the copy, with more variables. */
  run(
    command: ReadonlyArray<string>,
    variables: Readonly<Record<string, string>> = {}
  ): { readonly status: number | null; readonly output: string } {
    const { status, stdout, stderr } = spawnSync(process.execPath, command, {
      cwd: this.folder,
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "", ...variables }
    })
    return { status, output: stdout + stderr }
  }

  /** Compiles what ships with what the page adds, its test included: what is wrong, if anything. */
  compile(): string {
    const file = join(this.folder, "tsconfig.json")
    const config = JSON.parse(readFileSync(file, "utf8")) as { include: ReadonlyArray<string> }
    const shipped = ["core", "sim", "exec", "traces", "scenarios", "testing"]
    writeFileSync(file, JSON.stringify({ ...config, include: [...shipped, ...this.touched.folders] }))
    return this.run([join(packageOf("typescript"), "bin/tsc"), "-p", "."]).output
  }

  /** Runs tests in the copy, those of a name where one is given, and fails where one does; how many of each file have passed. */
  test(files: ReadonlyArray<string>, named = ""): ReadonlyArray<number> {
    const runner = join(packageOf("vitest"), "vitest.mjs")
    const report = join(this.folder, "report.json")
    // Its own report, where this run has one to write, too.
    const { output, status } = this.run([runner, "run", ...files, "--maxWorkers=1", "-t", named], {
      TANDEM_TEST_REPORT: report
    })
    if (status !== 0) throw new Error(output)
    const { testResults } = JSON.parse(readFileSync(report, "utf8")) as Report
    return files.map((file) => {
      const of = testResults.find(({ name }) => name.endsWith(`/${file}`))
      return (of?.assertionResults ?? []).filter((one) => one.status === "passed").length
    })
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The text with each hunk's removed lines replaced by the added ones, found by the lines around them. */
const changed = (text: string, diff: string): string =>
  diff.split(/^@@.*\n/mu).reduce((current, hunk) => {
    const lines = hunk.split("\n").filter((line) => line !== "")
    const side = (dropped: string) =>
      lines
        .filter((line) => !line.startsWith(dropped))
        .map((line) => `${line.slice(1)}\n`)
        .join("")
    const [before, after] = [side("+"), side("-")]
    if (current.split(before).length !== 2) throw new Error(`not once in the file:\n${before}`)
    return current.replace(before, () => after)
  }, text)
