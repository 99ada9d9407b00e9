// A cluster on one Linux machine: a network namespace for each rank, joined by a bridge, with a token bucket on each direction of
// each rank's link, and a delay where one is asked for (delay.cc). Real sockets, real shaping; needs root and iproute2, for delays a C++
// compiler. Knows nothing of what runs in it.
import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { messageOf } from "../../core/message-of.ts"

/** Bytes per second that a rank may send and receive; Infinity where nothing is shaped. */
interface Rates {
  readonly up: number
  readonly down: number
}

/** Runs a command of iproute2. Throws Error with what it said. */
const run = (...command: ReadonlyArray<string>): void => {
  const { status, stderr, error } = spawnSync(command[0]!, command.slice(1), { encoding: "utf8" })
  if (error !== undefined)
    throw new Error(`${command[0]}: ${error.message}; on Debian "apt-get install iproute2 g++"`)
  if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr.trim()}`)
}

/** Why no cluster can be made here; undefined where one can. */
export const whyNoCluster = (): string | undefined => {
  const name = `tandem-try-${process.pid}`
  try {
    run("ip", "netns", "add", name)
    run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", ...bucket(1e8))
    return undefined
  } catch (cause) {
    return messageOf(cause)
  } finally {
    spawnSync("ip", ["netns", "del", name])
  }
}

/** Two packets as veth passes them on, many segments in one, and as a device of delay.cc does. */
const leastBurst = { veth: 131_072, delayed: 18_432 }

/**
 * A token bucket of that rate. What it lets pass at once is 0.3 ms worth, or two packets: over a link that takes time more would give
 * back what a sender that waits has lost. What it cannot send it holds for up to 200 ms before it drops.
 */
const bucket = (bytesPerSecond: number, least = leastBurst.veth): ReadonlyArray<string> => [
  "rate",
  `${Math.round(bytesPerSecond * 8)}bit`,
  "burst",
  String(Math.round(Math.max(least, bytesPerSecond * 0.0003))),
  "latency",
  "200ms"
]

/**
 * As hosts that train are set up, whatever this one's own settings: congestion control by loss, Linux's usual one (or Reno, where the
 * kernel lets a namespace have no other), and windows that stay open between messages, where a connection that was idle would begin
 * anew with ten segments.
 */
const setUp = (space: string): void => {
  const set = (...settings: ReadonlyArray<string>): void =>
    run("ip", "netns", "exec", space, "sysctl", "-qw", ...settings)
  set("net.ipv4.tcp_slow_start_after_idle=0")
  try {
    set("net.ipv4.tcp_congestion_control=cubic")
  } catch {
    set("net.ipv4.tcp_congestion_control=reno")
  }
}

/** What the links' delays are made by: a process between each rank's device and the hub's. */
class Delays {
  readonly #process: ChildProcess
  readonly #folder = mkdtempSync(path.join(tmpdir(), "tandem-delay-"))

  /** `ends`: namespace of each rank and its port in the hub. Throws Error where it cannot be built or begin. */
  constructor(hub: string, ends: ReadonlyArray<readonly [space: string, port: string]>) {
    const program = path.join(this.#folder, "delay")
    const source = fileURLToPath(new URL("delay.cc", import.meta.url))
    run(process.env["CXX"] ?? "c++", "-O2", "-std=c++20", "-pthread", source, "-o", program)
    this.#process = spawn(program, [hub, ...ends.flat()], { stdio: ["pipe", "ignore", "inherit"] })
    const isThere = ([, port]: readonly [string, string]): boolean =>
      spawnSync("ip", ["-n", hub, "link", "show", port]).status === 0
    for (let tries = 0; !ends.every(isThere); tries++) {
      if (tries === 100) throw new Error("the links' delays have not begun: no device of /dev/net/tun")
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
    }
  }

  set(seconds: number): void {
    this.#process.stdin!.write(`${Math.round(seconds * 1e6)}\n`)
  }

  close(): void {
    this.#process.kill()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

export class Cluster {
  readonly #name = `tdm${process.pid}`
  readonly #ranks: number

  #delays: Delays | undefined

  /** `rates` by rank; with `delayed` links may take time. Throws Error where namespaces cannot be made; nothing is left then. */
  constructor(rates: ReadonlyArray<Rates>, { delayed = false }: { readonly delayed?: boolean } = {}) {
    this.#ranks = rates.length
    try {
      run("ip", "netns", "add", this.#hub)
      rates.forEach((_, rank) => run("ip", "netns", "add", this.#space(rank)))
      if (delayed)
        this.#delays = new Delays(
          this.#hub,
          rates.map((_, rank) => [this.#space(rank), this.#port(rank)] as const)
        )
      run("ip", "-n", this.#hub, "link", "add", "br0", "mtu", "9000", "type", "bridge")
      run("ip", "-n", this.#hub, "link", "set", "br0", "up")
      rates.forEach(({ up, down }, rank) => {
        const [space, port] = [this.#space(rank), this.#port(rank)]
        if (!delayed) {
          const ends = ["netns", this.#hub, "type", "veth", "peer", "name", "eth0", "netns", space]
          run("ip", "link", "add", port, ...ends)
        }
        run("ip", "-n", space, "link", "set", "eth0", "mtu", "9000")
        run("ip", "-n", this.#hub, "link", "set", port, "mtu", "9000", "master", "br0", "up")
        run("ip", "-n", space, "addr", "add", `${this.addressOf(rank)}/16`, "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        setUp(space)
        if (up < Infinity) this.#shape("add", space, "eth0", up)
        if (down < Infinity) this.#shape("add", this.#hub, port, down)
      })
    } catch (cause) {
      this.close()
      throw cause
    }
  }

  addressOf(rank: number): string {
    return `10.213.${Math.floor(rank / 250)}.${(rank % 250) + 1}`
  }

  /** Starts a command on a rank. */
  spawn(rank: number, command: ReadonlyArray<string>, options: SpawnOptions): ChildProcess {
    return spawn("ip", ["netns", "exec", this.#space(rank), ...command], options)
  }

  /** Changes the rates of a rank that were shaped from the start. */
  setRates(rank: number, { up, down }: Rates): void {
    if (up < Infinity) this.#shape("change", this.#space(rank), "eth0", up)
    if (down < Infinity) this.#shape("change", this.#hub, this.#port(rank), down)
  }

  /** What is sent from now on takes so long to any other rank; of a cluster that is `delayed`. */
  setDelay(seconds: number): void {
    if (this.#delays !== undefined) this.#delays.set(seconds)
    else if (seconds > 0) throw new Error("the cluster was made without delays")
  }

  /** Takes a rank's link down, or up again. */
  setLink(rank: number, state: "up" | "down"): void {
    run("ip", "-n", this.#hub, "link", "set", this.#port(rank), state)
  }

  /** Removes everything; what still runs in it loses its network. */
  close(): void {
    this.#delays?.close()
    for (let rank = 0; rank < this.#ranks; rank++) spawnSync("ip", ["netns", "del", this.#space(rank)])
    spawnSync("ip", ["netns", "del", this.#hub])
  }

  get #hub(): string {
    return `${this.#name}-hub`
  }

  #space(rank: number): string {
    return `${this.#name}-r${rank}`
  }

  #port(rank: number): string {
    return `port${rank}`
  }

  #shape(how: "add" | "change", space: string, device: string, bytesPerSecond: number): void {
    run(
      "ip",
      "netns",
      "exec",
      space,
      "tc",
      "qdisc",
      how,
      "dev",
      device,
      "root",
      "tbf",
      ...bucket(bytesPerSecond, this.#delays === undefined ? leastBurst.veth : leastBurst.delayed)
    )
  }
}
