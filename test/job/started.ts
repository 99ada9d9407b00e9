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
  /** When there is a first line. Fails where it ended without one. */
  readonly begun: Promise<unknown>
  /** The last line, when it has ended with that: by itself, and as well as the line says (joined.ts). Fails where it ended otherwise. */
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
    return listenedTo(rank, start(rank, command, env))
  })
}

const listenedTo = (rank: number, child: ChildProcess): Member => {
  const lines: Array<unknown> = []
  let text = ""
  const begun = Promise.withResolvers<unknown>()
  const end = Promise.withResolvers<unknown>()
  child.stdout!.on("data", (more) => {
    text += String(more)
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      lines.push(JSON.parse(text.slice(0, end)))
      text = text.slice(end + 1)
      begun.resolve(lines[0])
    }
  })
  const failed = (error: Error): void => {
    begun.reject(error)
    end.reject(error)
  }
  child.on("error", failed)
  child.on("close", (code, signal) => {
    const last = lines.at(-1)
    const isFailure = typeof last === "object" && last !== null && "failed" in last
    if (lines.length > 0 && code === (isFailure ? 1 : 0)) return end.resolve(last)
    const how = signal === null ? `with ${code}` : `by ${signal}`
    const said = lines.length === 0 ? "nothing" : JSON.stringify(last)
    failed(new Error(`rank ${rank} ended ${how}, having said ${said}`))
  })
  // Of one that is ended on purpose nobody asks.
  for (const { promise } of [begun, end]) promise.catch(() => {})
  return { child, lines, begun: begun.promise, end: end.promise }
}

/** All have said something. Fails where one has ended before it did. */
export const begun = async (members: ReadonlyArray<Member>): Promise<void> => {
  await Promise.all(members.map((member) => member.begun))
}
