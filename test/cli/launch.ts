// The command lines in processes of their own, for tests.
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll } from "vitest"

export const root = fileURLToPath(new URL("../..", import.meta.url))
const launcherOf = (command: "sim" | "exec"): string => path.join(root, `bin/${command}.js`)
const launcher = launcherOf("sim")

interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

const launched =
  (command: "sim" | "exec") =>
  (...args: ReadonlyArray<string>): Ended => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [launcherOf(command), ...args], {
      cwd: root,
      encoding: "utf8"
    })
    return { status, stdout, stderr }
  }
export const sim = launched("sim")
export const exec = launched("exec")

/** Of each of several command lines, in one process that starts once for all. Throws where that does not come to its end. */
const each = (command: "sim" | "exec", lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<Ended> => {
  const child = spawnSync(process.execPath, [path.join(root, "test/cli/several.ts"), command], {
    cwd: root,
    encoding: "utf8",
    input: JSON.stringify(lines),
    // More than that ends the child: what is printed is small beside it.
    maxBuffer: 1 << 28
  })
  // What each wrote ends with a zero, on standard error with the exit code before it.
  const out = child.stdout.split("\0")
  const err = child.stderr.split("\0")
  const [done, rest] = [err.slice(0, -1), err.at(-1)!]
  if (child.error !== undefined || child.status !== 0 || done.length !== lines.length) {
    const next = lines[done.length]
    const how = child.signal === null ? `with ${child.status}` : `by ${child.signal}`
    const where = next === undefined ? "after the last" : `in "${next.join(" ")}"`
    throw new Error(
      `the process of ${lines.length} command lines of ${command} ended ${how} ${where}` +
        `${child.error === undefined ? "" : ` (${child.error.message})`}; it wrote ${rest}`
    )
  }
  return done.map((text, at) => {
    const [, told, status] = /^(.*?)(\d+)$/su.exec(text)!
    return { status: Number(status), stdout: out[at]!, stderr: told! }
  })
}

export const simEach = (lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<Ended> =>
  each("sim", lines)
export const execEach = (lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<Ended> =>
  each("exec", lines)

/** Through a shell, which may limit the process first: `$SIM` is the command. */
export const simInShell = (script: string, ...args: ReadonlyArray<string>): Ended => {
  const { status, stdout, stderr } = spawnSync("sh", ["-c", script, "sh", ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, SIM: `${process.execPath} ${launcher}` }
  })
  return { status, stdout, stderr }
}

/** Begins, and is not waited for. */
export const begin = (
  ...args: ReadonlyArray<string>
): { readonly child: ChildProcess; readonly ended: Promise<Ended> } => {
  const child = spawn(process.execPath, [launcher, ...args], { cwd: root })
  const out: Array<string> = []
  const err: Array<string> = []
  child.stdout.on("data", (chunk) => out.push(String(chunk)))
  child.stderr.on("data", (chunk) => err.push(String(chunk)))
  const ended = new Promise<Ended>((resolve) =>
    child.on("close", (status) => resolve({ status, stdout: out.join(""), stderr: err.join("") }))
  )
  return { child, ended }
}

const folders: Array<string> = []
afterAll(() => {
  for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true })
})

/** A folder that is gone after the tests of the file. */
export const folder = (): string => {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-cli-"))
  folders.push(made)
  return made
}

/** Names of what is in a folder, that of one which is not there being nothing. */
export const filesIn = (where: string): ReadonlyArray<string> =>
  fs.existsSync(where) ? fs.readdirSync(where).toSorted() : []

/** Writes a scenario of a moment with these axes of a study; its name. */
export const smallStudy = (here: string, axes: string): string => {
  const scenario = path.join(here, "small.yaml")
  fs.writeFileSync(
    scenario,
    `name: small
model: { layers: 2, parameters: 1e6, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
steps: 2
study: { axes: { ${axes} } }
`
  )
  return scenario
}
