// `--processes N`: the processes of a job on this host, started, told apart, and never left behind. Each is the same command
// with a place of its own. Knows nothing of what they do.
import { spawn, type ChildProcess } from "node:child_process"
import type { Socket } from "node:net"
import { constants } from "node:os"
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import { messageOf } from "../../core/message-of.ts"
import type { Variables } from "./environment.ts"
import { freePort } from "./free-port.ts"
import { holdLifeline, lifeline } from "./lifeline.ts"
import { NoRendezvous } from "./rendezvous.ts"
import { freshSecret } from "./secret.ts"
import { ToldOnce } from "./told-once.ts"

/** When one has failed, the others have so long to notice, and then again as long to tidy up. */
const graceMillis = 10_000

interface SpawnOptions {
  readonly processes: number
  /** What each runs, after the interpreter: the script and its arguments. */
  readonly command: ReadonlyArray<string>
  readonly variables: Variables
  readonly write: (stream: "out" | "error", text: string) => void
}

/** Where the processes are to meet, which none of them is there to say. */
const meetingPort = Effect.tryPromise({
  try: freePort,
  catch: (cause) => {
    const why = messageOf(cause)
    return new NoRendezvous({ rank: 0, reason: `no port of 127.0.0.1 for the processes to meet at: ${why}` })
  }
})

/**
 * Runs the job to its end; its exit code is that of the process that ended first of those that failed, else 0. Fails where none
 * could be started.
 */
export const spawnJob = ({
  processes,
  command,
  variables,
  write
}: SpawnOptions): Effect.Effect<number, NoRendezvous> =>
  Effect.flatMap(meetingPort, (port) =>
    Effect.callback<number>((resume) => {
      const secret = freshSecret()
      const children: Array<ChildProcess> = []
      const failures = new ToldOnce(processes, (text) => write("error", text))
      let code = 0
      /** Ranks that have ended, or never began: of those the system tells twice. */
      const over = new Set<number>()
      /** Signals that have gone out from here: of an end by another, whoever reads is told, first of the ends or not. */
      const sent = new Set<NodeJS.Signals>()
      let grace: NodeJS.Timeout | undefined
      const ended = (rank: number, exit: number | null, signal: NodeJS.Signals | null): void => {
        if (over.has(rank)) return
        over.add(rank)
        const own = exit ?? 128 + (signal === null ? 0 : constants.signals[signal])
        if (signal !== null && !sent.has(signal)) write("error", `[${rank}] ended by ${signal}\n`)
        if (own !== 0 && code === 0) {
          code = own
          const seconds = graceMillis / 1000
          grace = setTimeout(() => {
            const others = `${stillRunning()} told to end`
            write("error", `exec: ${others}, ${seconds} s after rank ${rank} ended with exit code ${own}\n`)
            forward("SIGTERM")
            // Who was stopped hears of it then.
            forward("SIGCONT")
            grace = setTimeout(() => {
              write("error", `exec: ${stillRunning()} killed, ${seconds} s after being told to end\n`)
              forward("SIGKILL")
            }, graceMillis)
          }, graceMillis)
        }
        if (over.size < processes) return
        failures.tell()
        clearTimeout(grace)
        for (const name of forwarded) process.off(name, forward)
        resume(Effect.succeed(code))
      }
      const stillRunning = (): string => {
        const ranks = children.flatMap((_, rank) => (over.has(rank) ? [] : [rank]))
        return ranks.length === 1 ? `rank ${ranks[0]} is` : `ranks ${ranks.join(", ")} are`
      }
      const forward = (signal: NodeJS.Signals): void => {
        sent.add(signal)
        for (const child of children)
          if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      }
      for (const name of forwarded) process.on(name, forward)
      for (let rank = 0; rank < processes; rank++) {
        const child = spawn(process.execPath, [...process.execArgv, ...command], {
          // A group of its own: a Ctrl-C reaches it once, from here.
          detached: true,
          stdio: ["ignore", rank === 0 ? "inherit" : "pipe", rank === 0 ? "inherit" : "pipe", "pipe"],
          env: {
            ...variables,
            // The job has a secret of its own, and its pipe is how a child notices that this process is gone.
            TANDEM_SECRET: undefined,
            TANDEM_SECRET_FILE: undefined,
            TANDEM_RANK: String(rank),
            TANDEM_LOCAL_RANK: String(rank),
            TANDEM_WORLD_SIZE: String(processes),
            TANDEM_SECRET_FD: String(lifeline),
            MASTER_ADDR: "127.0.0.1",
            MASTER_PORT: String(port)
          }
        })
        children.push(child)
        // The pipe stays open as long as this process lives. There is none where the system is out of descriptors.
        const line = child.stdio?.[lifeline] as Socket | undefined
        if (line !== undefined) holdLifeline(line, secret, (failure) => failures.hear(rank, failure))
        for (const [stream, from] of [["out", child.stdout] as const, ["error", child.stderr] as const]) {
          if (from)
            createInterface({ input: from }).on("line", (text) => write(stream, `[${rank}] ${text}\n`))
        }
        child.on("error", (error) => {
          // One that runs may still fail to be signalled.
          if (child.pid !== undefined) return
          write("error", `[${rank}] cannot be started: ${error.message}\n`)
          ended(rank, 1, null)
        })
        child.on("close", (exit, signal) => ended(rank, exit, signal))
      }
      return Effect.sync(() => forward("SIGTERM"))
    })
  )

const forwarded: ReadonlyArray<NodeJS.Signals> = ["SIGINT", "SIGTERM", "SIGHUP"]
