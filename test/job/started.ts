// Starts real processes that make a job of one rank each: every one runs the same script of this folder, and says what it comes to
// in lines of JSON on standard output.
import { spawn, type ChildProcess } from "node:child_process"
import * as path from "node:path"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"

export interface Member {
  readonly child: ChildProcess
  /** Lines so far. */
  readonly lines: Array<unknown>
  /** The last line, when it has ended. */
  readonly end: Promise<unknown>
}

/** Variables by which a process finds its job, as torchrun sets them. */
export const variablesOf = (rank: number, size: number, master: string, port: number, secret: string) => ({
  RANK: String(rank),
  WORLD_SIZE: String(size),
  MASTER_ADDR: master,
  MASTER_PORT: String(port),
  TANDEM_SECRET: secret
})

interface JobOptions {
  readonly script: string
  readonly args: ReadonlyArray<string>
  /** What a rank runs instead, with its arguments. */
  readonly others?: Readonly<Record<number, readonly [script: string, ...args: ReadonlyArray<string>]>>
  readonly size: number
  /** How a rank's process is started; default: the command as it is, on this host. */
  readonly start?: (rank: number, command: ReadonlyArray<string>, env: NodeJS.ProcessEnv) => ChildProcess
  readonly transport?: string
  /** Where rank 0 is. */
  readonly master?: string
}

const startHere: NonNullable<JobOptions["start"]> = (_, [program, ...args], env) =>
  spawn(program!, args, { env, stdio: ["ignore", "pipe", "inherit"] })

export const startMembers = async (options: JobOptions): Promise<ReadonlyArray<Member>> => {
  const { size, start = startHere, master = "127.0.0.1", transport = "tcp" } = options
  const port = await freePort()
  const secret = freshSecret()
  return Array.from({ length: size }, (_, rank) => {
    const [script, ...args] = options.others?.[rank] ?? [options.script, ...options.args]
    const command = [process.execPath, path.join(import.meta.dirname, script), ...args]
    const env = {
      ...process.env,
      ...variablesOf(rank, size, master, port, secret),
      TANDEM_TRANSPORT: transport
    }
    return listenedTo(start(rank, command, env))
  })
}

const listenedTo = (child: ChildProcess): Member => {
  const lines: Array<unknown> = []
  let text = ""
  child.stdout!.on("data", (more) => {
    text += String(more)
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      lines.push(JSON.parse(text.slice(0, end)))
      text = text.slice(end + 1)
    }
  })
  return { child, lines, end: new Promise((resolve) => child.on("close", () => resolve(lines.at(-1)))) }
}

/** All have said something. */
export const begun = async (members: ReadonlyArray<Member>): Promise<void> => {
  while (members.some(({ lines }) => lines.length === 0)) await new Promise((go) => setTimeout(go, 20))
}
