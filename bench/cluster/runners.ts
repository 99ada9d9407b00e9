// Ranks of a cluster in a box that run what they are told, one run after another. Knows nothing of what is predicted.
import { spawn, type ChildProcess } from "node:child_process"
import { createInterface } from "node:readline"
import { freshSecret } from "../../exec/job/secret.ts"
import type { Cluster } from "./namespaces.ts"
import type { Said } from "./rank-loop.ts"

const ncclBufferBytes = process.env["NCCL_BUFFSIZE"] ?? "1048576"

/** What NCCL has go around a ring at a time: half of its buffer on each of the two channels that it has over sockets here. */
export const ncclChunkBytes = Number(ncclBufferBytes)

/** Variables of a rank in a namespace, as on that host. */
const asHost = (host: number): Readonly<Record<string, string>> => ({
  NCCL_HOSTID: `host ${host}`,
  NCCL_SOCKET_IFNAME: "eth0",
  GLOO_SOCKET_IFNAME: "eth0",
  NCCL_IB_DISABLE: "1",
  NCCL_NVLS_ENABLE: "0",
  // A few connections, so that the link and not one core is the limit, and short buffers. With sixteen connections NCCL uses 12 %
  // less of 10 Gbit/s, with its own buffers of 4 MiB 4 % less of 1 Gbit/s, in messages of 12.5 MB. Whoever says otherwise has it so.
  NCCL_NSOCKS_PERTHREAD: process.env["NCCL_NSOCKS_PERTHREAD"] ?? "2",
  NCCL_SOCKET_NTHREADS: process.env["NCCL_SOCKET_NTHREADS"] ?? "2",
  NCCL_BUFFSIZE: ncclBufferBytes
})

/** Each run of a command has ports of its own, for several may be under way on this host; in namespaces it would not matter. */
let port = 20_000 + ((16 * process.pid) % 10_000)

export interface RankOptions {
  /** Ranks of a namespace; default 1. */
  readonly perHost?: number
  /** Namespace of rank 0; default 0. */
  readonly firstHost?: number
  /** Variables of their environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Which program, with its first arguments; default Node. */
  readonly program?: ReadonlyArray<string>
}

/** Starts the same program once for each rank, in the cluster's namespaces or, without one, here. */
export const startRanks = (
  ranks: number,
  cluster: Cluster | undefined,
  command: ReadonlyArray<string>,
  stdio: "pipe" | "inherit",
  {
    perHost = 1,
    firstHost = 0,
    env: more = {},
    program = [process.execPath, ...process.execArgv]
  }: RankOptions = {}
): ReadonlyArray<ChildProcess> => {
  const secret = freshSecret()
  port++
  return Array.from({ length: ranks }, (_, rank) => {
    const host = firstHost + Math.floor(rank / perHost)
    const env = {
      ...process.env,
      TANDEM_RANK: String(rank),
      TANDEM_LOCAL_RANK: String(rank),
      TANDEM_WORLD_SIZE: String(ranks),
      TANDEM_SECRET: secret,
      MASTER_ADDR: cluster?.addressOf(firstHost) ?? "127.0.0.1",
      MASTER_PORT: String(port),
      ...(cluster === undefined ? {} : asHost(host)),
      ...more
    }
    const whole = [...program, ...command]
    return cluster === undefined
      ? spawn(whole[0]!, whole.slice(1), { env, stdio: [stdio, stdio, "inherit"] })
      : cluster.spawn(host, whole, { env, stdio: [stdio, stdio, "inherit"] })
  })
}

export const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    child.on("close", (code) => {
      if (code === 0) resolve()
      else reject(new Error(`a rank ended with code ${code}`))
    })
  })

/** Why there is no answer. */
export type Failed = { readonly error: string }

interface Waiting<A> {
  readonly begun: () => void
  readonly answered: (answer: A | Failed) => void
  /** By rank: who has answered. */
  readonly answers: Map<number, A | Failed>
  /** Runs when one has failed, or rank 0 is done: the others are about to be. */
  grace?: NodeJS.Timeout
}

/** The ranks of one cluster, until they are closed; `R` is what they are asked, `A` what they answer. */
export class Runners<R, A extends object> {
  readonly #children: ReadonlyArray<ChildProcess>
  #waiting: Waiting<A> | undefined
  #over: string | undefined
  readonly #graceMillis: number

  /** When a rank has failed, or rank 0 is done, the others have so long to say what became of them. */
  constructor(children: ReadonlyArray<ChildProcess>, graceMillis = 60_000) {
    this.#children = children
    this.#graceMillis = graceMillis
    for (const [rank, child] of children.entries()) {
      createInterface({ input: child.stdout! }).on("line", (line) => {
        const said = JSON.parse(line) as Said<A>
        if ("answer" in said) this.#heard(rank, said.answer)
        else if (rank === 0) this.#waiting?.begun()
      })
      child.stdin!.on("error", () => {})
      // A program that is not there; its streams close then.
      child.on("error", ({ message }) => {
        this.#over ??= `rank ${rank} did not start: ${message}`
      })
      child.on("close", (code) => {
        this.#over ??= `a rank has ended (code ${code})`
        this.#end(this.#over)
      })
    }
  }

  /**
   * Runs it on all ranks; `begun` is called when the run's clock starts. The answer is rank 0's, or the errors of all that failed,
   * each with its rank. Answers at once where ranks have ended.
   */
  run(request: R, begun: () => void = () => {}): Promise<A | Failed> {
    if (this.#over !== undefined) return Promise.resolve({ error: this.#over })
    return new Promise((answered) => {
      this.#waiting = { begun, answered, answers: new Map() }
      for (const { stdin } of this.#children) stdin!.write(`${JSON.stringify(request)}\n`)
    })
  }

  /** They have ended, or will be of no more use. */
  get over(): boolean {
    return this.#over !== undefined
  }

  /** Ends the ranks at once, whatever they do; a run under way is answered with an error. */
  kill(): void {
    this.#over ??= "the ranks were ended"
    for (const child of this.#children) child.kill("SIGKILL")
  }

  async close(): Promise<void> {
    this.#over ??= "the ranks were closed"
    for (const { stdin } of this.#children) stdin!.end()
    await Promise.allSettled(
      this.#children.map((child) =>
        child.exitCode === null && child.signalCode === null ? ended(child) : undefined
      )
    )
  }

  #heard(rank: number, answer: A | Failed): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    waiting.answers.set(rank, answer)
    if (waiting.answers.size === this.#children.length) return this.#end()
    if (rank !== 0 && !("error" in answer)) return
    waiting.grace ??= setTimeout(() => {
      const silent = this.#children.flatMap((_, rank) => (waiting.answers.has(rank) ? [] : [rank]))
      // What they still do would mix with the next run.
      this.#over ??= `rank ${silent.join(", ")} did not answer`
      this.#end(this.#over)
    }, this.#graceMillis)
  }

  /** Answers with what the ranks have said; where they have not all, with what is the matter. */
  #end(matter?: string): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    this.#waiting = undefined
    clearTimeout(waiting.grace)
    const errors = [...waiting.answers].flatMap(([rank, answer]) =>
      "error" in answer ? [`rank ${rank}: ${answer.error}`] : []
    )
    if (matter !== undefined) errors.push(matter)
    waiting.answered(errors.length > 0 ? { error: errors.join("; ") } : waiting.answers.get(0)!)
  }
}
