// What two processes of this host move by each transport, in turn with a copy of memory, iperf3 of as many streams, and PyTorch's Gloo:
//   node bench/cluster/throughput.ts [--streams 1,2,4] [--mib 256] [--rounds 5] [--repeats 8]
// Medians, and medians of ratios within a round; every round starts all anew, so that what else the machine does falls on all. What
// is not installed (iperf3, libucx0, python3-torch) is left out and said.
import { execFile, spawn, spawnSync } from "node:child_process"
import { availableParallelism, loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { ucxInfo } from "../../exec/native.ts"
import { median } from "../../core/median.ts"
import { numbersOf, optionsOf, positiveNumber, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    streams: { type: "string", default: "1,2,4" },
    mib: { type: "string", default: "256" },
    rounds: { type: "string", default: "5" },
    repeats: { type: "string", default: "8" }
  }
})
const streamCounts = numbersOf("--streams", values.streams, wholeNumber)
const bytes = positiveNumber("--mib", values.mib) * 2 ** 20
const repeats = wholeNumber("--repeats", values.repeats)
const roundCount = wholeNumber("--rounds", values.rounds)
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const run = promisify(execFile)

/** Bytes per second one way, and of what an all-reduce of two sends each way. */
interface Rates {
  readonly sent: number
  readonly reduced: number
}

/** Runs a program as two ranks; rank 0 says how many seconds a message takes, and an average. */
const ofTwo = async (
  program: string,
  args: ReadonlyArray<string>,
  variables: NodeJS.ProcessEnv = {}
): Promise<Rates> => {
  const port = String(await freePort())
  const secret = freshSecret()
  const [first] = await Promise.all(
    ["0", "1"].map((rank) =>
      run(program, args, {
        env: {
          ...process.env,
          ...variables,
          RANK: rank,
          WORLD_SIZE: "2",
          MASTER_ADDR: "127.0.0.1",
          MASTER_PORT: port,
          TANDEM_SECRET: secret
        }
      })
    )
  )
  const { sendSeconds, reduceSeconds } = JSON.parse(first!.stdout) as Record<string, number>
  return { sent: bytes / sendSeconds!, reduced: bytes / reduceSeconds! }
}

const ours = (streams: number, variables: NodeJS.ProcessEnv): Promise<Rates> =>
  ofTwo(
    process.execPath,
    [here("throughput-rank.ts"), String(streams), String(bytes), String(repeats)],
    variables
  )

const iperf3 = async (streams: number): Promise<Rates> => {
  const port = await freePort()
  const server = spawn("iperf3", ["-s", "-1", "-p", String(port)], { stdio: "ignore" })
  await new Promise((go) => setTimeout(go, 500))
  const args = ["-c", "127.0.0.1", "-p", String(port), "-P", String(streams), "-t", "3", "-J"]
  const { stdout } = await run("iperf3", args, { maxBuffer: 1 << 26 })
  server.kill()
  const { end } = JSON.parse(stdout) as {
    readonly end: { readonly sum_received: { readonly bits_per_second: number } }
  }
  return { sent: end.sum_received.bits_per_second / 8, reduced: NaN }
}

const copied = (): Promise<Rates> => {
  const [from, to] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)]
  const began = performance.now()
  for (let i = 0; i < repeats; i++) to.set(from)
  return Promise.resolve({ sent: (bytes * repeats) / ((performance.now() - began) / 1000), reduced: NaN })
}

/** Debian's, for which python3-torch is. */
const python = "/usr/bin/python3"

/** Each way, by name, for a round to take in turn. */
const ways = new Map<string, () => Promise<Rates>>([["memory copy", copied]])
const has = (program: string, ...args: ReadonlyArray<string>): boolean =>
  spawnSync(program, args, { stdio: "ignore" }).status === 0
ways.set("memory", () => ours(2, { TANDEM_TRANSPORT: "auto" }))
const ucx = ucxInfo()
if ("missing" in ucx) console.log(`without UCX: ${ucx.missing}`)
else {
  ways.set("ucx, shared memory", () => ours(1, { TANDEM_TRANSPORT: "ucx" }))
  ways.set("ucx, TCP", () => ours(1, { TANDEM_TRANSPORT: "ucx", UCX_TLS: "tcp,self" }))
}
if (has(python, "-c", "import torch"))
  ways.set("Gloo", () => ofTwo(python, [here("gloo-rank.py"), String(bytes), String(repeats)]))
else console.log("without Gloo: apt-get install python3-torch")
const withIperf3 = has("iperf3", "--version")
if (!withIperf3) console.log("without iperf3: apt-get install iperf3")
for (const streams of streamCounts) {
  ways.set(`tcp, ${streams}`, () => ours(streams, { TANDEM_TRANSPORT: "tcp" }))
  if (withIperf3) ways.set(`iperf3, ${streams}`, () => iperf3(streams))
}

const gigabytes = (rate: number): string => (rate / 1e9).toFixed(2).padStart(6)

console.log(`${values.mib} MiB, ${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}`)
const rounds: Array<ReadonlyMap<string, Rates>> = []
for (let round = 0; round < roundCount; round++) {
  const rates = new Map<string, Rates>()
  for (const [name, act] of ways) rates.set(name, await act())
  rounds.push(rates)
}
const ratio = (of: string, to: string, what: keyof Rates): string =>
  ways.has(of) && ways.has(to)
    ? median(rounds.map((rates) => rates.get(of)![what] / rates.get(to)![what])).toFixed(2)
    : "-"
console.log("GB/s                 one way   range          all-reduce of 2, each way")
for (const name of ways.keys()) {
  const sent = rounds.map((rates) => rates.get(name)!.sent)
  const reduced = median(rounds.map((rates) => rates.get(name)!.reduced))
  const range = `${gigabytes(Math.min(...sent))} -${gigabytes(Math.max(...sent))}`
  console.log(
    `${name.padEnd(20)} ${gigabytes(median(sent))}   ${range}   ${Number.isNaN(reduced) ? "" : gigabytes(reduced)}`
  )
}
const most = `tcp, ${values.streams.split(",").at(-1)!}`
console.log(
  [
    `to a memory copy: memory ${ratio("memory", "memory copy", "sent")}, UCX's shared memory ${ratio("ucx, shared memory", "memory copy", "sent")}`,
    ...values.streams
      .split(",")
      .map((n) => `tcp to iperf3 with ${n} ${ratio(`tcp, ${n}`, `iperf3, ${n}`, "sent")}`),
    `to Gloo: memory ${ratio("memory", "Gloo", "sent")}, UCX's shared memory ${ratio("ucx, shared memory", "Gloo", "sent")}, ${most} ${ratio(most, "Gloo", "sent")}`,
    `all-reduces to Gloo's: memory ${ratio("memory", "Gloo", "reduced")}, UCX's shared memory ${ratio("ucx, shared memory", "Gloo", "reduced")}, ${most} ${ratio(most, "Gloo", "reduced")}`,
    `UCX's TCP to ${most} ${ratio("ucx, TCP", most, "sent")}`
  ].join("\n")
)
