// Collectives between processes, held to the reference: over TCP and UCX, and over NCCL with TANDEM_BACKEND=cuda.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { backend, describeNative } from "../native/addon.ts"
import { transports } from "./transports.ts"

const member = fileURLToPath(new URL("collective-member.ts", import.meta.url))

interface Told {
  readonly ranks: ReadonlyArray<{
    readonly rank: number
    readonly kinds: ReadonlyArray<string>
    readonly wrong: ReadonlyArray<string>
  }>
  readonly overlapped: boolean
  readonly carriedBy: string
}

const together = async (
  ranks: number,
  transport: string,
  env: Readonly<Record<string, string>> = {}
): Promise<Told> => {
  const [port, secret] = [await freePort(), freshSecret()]
  const said = await Promise.all(
    Array.from(
      { length: ranks },
      (_, rank) =>
        new Promise<string>((resolve, reject) => {
          const child = spawn(process.execPath, [...process.execArgv, member, "--backend", backend], {
            env: {
              ...process.env,
              ...env,
              TANDEM_RANK: String(rank),
              TANDEM_LOCAL_RANK: String(rank),
              TANDEM_WORLD_SIZE: String(ranks),
              TANDEM_SECRET: secret,
              TANDEM_TRANSPORT: transport,
              MASTER_ADDR: "127.0.0.1",
              MASTER_PORT: String(port)
            },
            stdio: ["ignore", "pipe", "pipe"]
          })
          let [out, error] = ["", ""]
          child.stdout.on("data", (chunk) => (out += String(chunk)))
          child.stderr.on("data", (chunk) => (error += String(chunk)))
          child.on("close", (code) =>
            code === 0 ? resolve(out) : reject(new Error(`rank ${rank} ended with ${code}: ${error}`))
          )
        })
    )
  )
  return JSON.parse(said[0]!) as Told
}

describeNative("collectives between processes", () => {
  // Between GPUs the mesh carries words alone.
  const over = backend === "cuda" ? ["tcp"] : transports
  const counts = backend === "cuda" ? [2, 3, 4] : [2, 4]
  it.each([
    ...over.flatMap((transport) => counts.map((count) => [count, transport, {}] as const)),
    ...(backend === "cuda" ? [[4, "tcp", { TANDEM_CUDA_NCCL_SUMS: "0" }] as const] : [])
  ])(
    "of %i ranks over %s equal their reference, and overlap in two lanes (%o)",
    async (count, transport, env) => {
      const { ranks, overlapped, carriedBy } = await together(count, transport, env)
      expect(carriedBy).toBe(transport === "auto" ? "memory" : transport)
      expect(ranks.flatMap(({ wrong }) => wrong)).toEqual([])
      expect(ranks.map(({ rank }) => rank)).toEqual(Array.from({ length: count }, (_, rank) => rank))
      expect(ranks[0]!.kinds.toSorted()).toEqual([
        "all_gather",
        "all_reduce",
        "all_to_all",
        "broadcast",
        "reduce_scatter",
        "send_recv"
      ])
      expect(overlapped).toBe(true)
    },
    120_000
  )
})
