// The command lines in other processes, for tests: one process for all that a worker tries, or one of their own.
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { isAlive } from "../setup/running.ts"
import type { Request } from "./several.ts"

export const root = fileURLToPath(new URL("../..", import.meta.url))
const launcherOf = (command: "sim" | "exec"): string => path.join(root, `bin/${command}.js`)
const launcher = launcherOf("sim")

interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** One process for command lines one after another: it starts once, and finds compiled what those before it have used. */
interface Warm {
  readonly environment: string
  readonly child: ChildProcess
  /** The end of the pipe that is written to. */
  readonly requests: number
  readonly files: Readonly<Record<"answers" | "out" | "err", Tail>>
}
let warm: Warm | undefined

/** A file that another process adds to; each text once. */
class Tail {
  readonly fd: number
  #at = 0
  constructor(file: string) {
    this.fd = fs.openSync(file, "a+")
  }
  rest(): string {
    const bytes = Buffer.alloc(fs.fstatSync(this.fd).size - this.#at)
    fs.readSync(this.fd, bytes, 0, bytes.length, this.#at)
    this.#at += bytes.length
    return bytes.toString()
  }
}

const startWarm = (environment: string): Warm => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-warm-"))
  const [pipe, answers] = [path.join(place, "requests"), path.join(place, "answers")]
  spawnSync("mkfifo", [pipe])
  // Opened for both, a pipe does not wait for its reader, who sees its end when this process has gone.
  const requests = fs.openSync(pipe, "r+")
  const files = {
    answers: new Tail(answers),
    out: new Tail(path.join(place, "out")),
    err: new Tail(path.join(place, "err"))
  }
  const child = spawn(process.execPath, [path.join(root, "test/cli/several.ts"), pipe, answers], {
    cwd: root,
    stdio: ["ignore", files.out.fd, files.err.fd]
  })
  child.unref()
  return { environment, child, requests, files }
}

const endWarm = (): void => {
  if (warm === undefined) return
  for (const fd of [warm.requests, ...Object.values(warm.files).map((file) => file.fd)]) fs.closeSync(fd)
  warm = undefined
}

/** How a process ended that nobody has waited for yet: proc(5), exit_code. */
const howEnded = (pid: number): string => {
  const status = Number(fs.readFileSync(`/proc/${pid}/stat`, "utf8").trim().split(" ").at(-1))
  const signal = status & 127
  const [name] = Object.entries(os.constants.signals).find(([, number]) => number === signal) ?? []
  return name === undefined ? `with ${status >> 8}` : `by ${name}`
}

const pause = new Int32Array(new SharedArrayBuffer(4))

const launched =
  (command: "sim" | "exec") =>
  (...line: ReadonlyArray<string>): Ended => {
    // A process of its own for another environment.
    const environment = JSON.stringify(process.env)
    if (warm?.environment !== environment) endWarm()
    const { child, requests, files } = (warm ??= startWarm(environment))
    fs.writeSync(requests, `${JSON.stringify({ command, line } satisfies Request)}\n`)
    for (;;) {
      // Asked before the answer is looked for: who answers, and then ends, has answered.
      const lives = isAlive(child.pid!)
      const answer = files.answers.rest()
      if (answer !== "") return { status: Number(answer), stdout: files.out.rest(), stderr: files.err.rest() }
      if (!lives) {
        const how = `ended ${howEnded(child.pid!)} in "${line.join(" ")}"`
        const wrote = files.out.rest() + files.err.rest()
        endWarm()
        throw new Error(`the process of command lines of ${command} ${how}; it wrote ${wrote}`)
      }
      Atomics.wait(pause, 0, 0, 2)
    }
  }
/** A command line, in a process that others before it may have gone through. Throws where that ends. */
export const sim = launched("sim")
export const exec = launched("exec")

const each =
  (run: typeof sim) =>
  (lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<Ended> =>
    lines.map((line) => run(...line))
export const simEach = each(sim)
export const execEach = each(exec)

/** A command line in a process of its own, as a person starts it. */
export const alone = (command: "sim" | "exec", ...line: ReadonlyArray<string>): Ended => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [launcherOf(command), ...line], {
    cwd: root,
    encoding: "utf8"
  })
  return { status, stdout, stderr }
}

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

/** A folder that is gone after the run (test/setup/temporary.ts). */
export const folder = (): string => fs.mkdtempSync(path.join(os.tmpdir(), "tandem-cli-"))

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
