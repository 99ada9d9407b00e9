// What two processes move over the loopback, beside what iperf3 moves with as many streams, in turn, and what a copy of memory does:
//   node bench/cluster/throughput.ts [--streams 1,2,4] [--mib 256] [--rounds 5]
// Medians; every round starts both anew, so that what else the machine does falls on both.
import { execFile, spawn } from "node:child_process"
import { availableParallelism, loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs, promisify } from "node:util"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"

const { values } = parseArgs({
  options: {
    streams: { type: "string", default: "1,2,4" },
    mib: { type: "string", default: "256" },
    rounds: { type: "string", default: "5" }
  }
})
const bytes = Number(values.mib) * 2 ** 20
const repeats = 8
const rank = fileURLToPath(new URL("throughput-rank.ts", import.meta.url))
const run = promisify(execFile)

/** Bytes per second one way, and of what an all-reduce of two sends one way. */
const ours = async (streams: number) => {
  const port = await freePort()
  const secret = freshSecret()
  const [first] = await Promise.all(
    [0, 1].map((own) =>
      run(process.execPath, [rank, String(streams), String(bytes), String(repeats)], {
        env: {
          ...process.env,
          RANK: String(own),
          WORLD_SIZE: "2",
          MASTER_ADDR: "127.0.0.1",
          MASTER_PORT: String(port),
          TANDEM_SECRET: secret
        }
      })
    )
  )
  const { sendSeconds, reduceSeconds } = JSON.parse(first!.stdout) as Record<string, number>
  return { sent: bytes / sendSeconds!, reduced: bytes / reduceSeconds! }
}

const iperf3 = async (streams: number): Promise<number> => {
  const port = await freePort()
  const server = spawn("iperf3", ["-s", "-1", "-p", String(port)], { stdio: "ignore" })
  await new Promise((go) => setTimeout(go, 500))
  const args = ["-c", "127.0.0.1", "-p", String(port), "-P", String(streams), "-t", "3", "-J"]
  const { stdout } = await run("iperf3", args, { maxBuffer: 1 << 26 })
  server.kill()
  const { end } = JSON.parse(stdout) as {
    readonly end: { readonly sum_received: { readonly bits_per_second: number } }
  }
  return end.sum_received.bits_per_second / 8
}

const copied = (): number => {
  const [from, to] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)]
  const began = performance.now()
  for (let i = 0; i < repeats; i++) to.set(from)
  return (bytes * repeats) / ((performance.now() - began) / 1000)
}

const median = (all: ReadonlyArray<number>): number => all.toSorted((a, b) => a - b)[all.length >> 1]!
const gigabytes = (rate: number): string => `${(rate / 1e9).toFixed(2)} GB/s`

console.log(
  `${values.mib} MiB, ${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}; memory copy ${gigabytes(median([copied(), copied(), copied()]))}`
)
console.log("streams  one way     iperf3      ratio  all-reduce of 2, each way")
for (const streams of values.streams.split(",").map(Number)) {
  const rounds = []
  for (let round = 0; round < Number(values.rounds); round++)
    rounds.push({ ...(await ours(streams)), theirs: await iperf3(streams) })
  const [sent, theirs] = [median(rounds.map(({ sent }) => sent)), median(rounds.map(({ theirs }) => theirs))]
  const ratio = median(rounds.map(({ sent, theirs }) => sent / theirs))
  console.log(
    `${String(streams).padStart(7)}  ${gigabytes(sent)}   ${gigabytes(theirs)}   ${ratio.toFixed(2)}   ${gigabytes(median(rounds.map(({ reduced }) => reduced)))}`
  )
}
