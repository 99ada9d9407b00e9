// Alpha-beta network: each link serves one flow at a time, in the order they became ready, and a flow alone on its
// links takes latency + bytes / bandwidth: the cost model of most papers on collectives.
// A flow queues on all of its links at once and starts when it is first on each, so no two can wait for each other.

import { SIMULTANEOUS, type Link, type Network, type WeightedLinks } from "./network.ts"
import { EventQueue } from "./event-queue.ts"

/** A flow that waits or is served. Records are recycled with their flow number. */
interface Flow {
  channel: Channel
  bytes: number
  latencySeconds: number
  /** How many of its links serve another flow before it. */
  behind: number
  /** While served: when its bytes begin, or began, to move at `rate`, and how many were left then. */
  movingSince: number
  left: number
  rate: number
  sequence: number
}

interface Channel {
  readonly links: ReadonlyArray<number>
  readonly weights: ReadonlyArray<number>
  readonly bytesPerSecondMax: number
}

export class AlphaBetaNetwork implements Network {
  ended = new Int32Array(64)
  readonly #bandwidths: Float64Array
  readonly #linkBytes: Float64Array
  readonly #busySeconds: Float64Array
  readonly #busySince: Float64Array
  readonly #queues: Array<Array<number>>
  readonly #heads: Int32Array
  readonly #channels: Array<Channel> = []
  readonly #flows: Array<Flow | undefined> = []
  readonly #ends = new EventQueue()
  #sequence = 0

  constructor(links: ReadonlyArray<Link>) {
    this.#bandwidths = Float64Array.from(links, (link) => link.bytesPerSecond)
    this.#linkBytes = new Float64Array(links.length)
    this.#busySeconds = new Float64Array(links.length)
    this.#busySince = new Float64Array(links.length).fill(NaN)
    this.#queues = links.map(() => [])
    this.#heads = new Int32Array(links.length)
  }

  channel(route: WeightedLinks, bytesPerSecondMax: number): number {
    return this.#channels.push({ links: route.links, weights: route.weights, bytesPerSecondMax }) - 1
  }

  join(flow: number, channel: number, bytes: number, latencySeconds: number, nowSeconds: number): void {
    const record: Flow = {
      channel: this.#channels[channel]!,
      bytes,
      latencySeconds,
      behind: 0,
      movingSince: 0,
      left: bytes,
      rate: 0,
      sequence: this.#sequence++
    }
    this.#flows[flow] = record
    for (const link of record.channel.links) {
      const queue = this.#queues[link]!
      if (queue.length > this.#heads[link]!) record.behind++
      queue.push(flow)
    }
    if (record.behind === 0) this.#serve(flow, record, nowSeconds)
  }

  nextEndSeconds(): number {
    return this.#ends.nextSeconds()
  }

  takeEnded(nowSeconds: number): number {
    let count = 0
    while (this.#ends.nextSeconds() <= nowSeconds * SIMULTANEOUS) {
      const flow = this.#ends.pop()
      if (count === this.ended.length) {
        const longer = new Int32Array(count * 2)
        longer.set(this.ended)
        this.ended = longer
      }
      this.ended[count++] = flow
    }
    for (let i = 0; i < count; i++) this.#leave(this.ended[i]!, nowSeconds)
    return count
  }

  settle(_nowSeconds: number): void {
    // A flow's share depends on nobody but itself: everything is up to date already.
  }

  setBandwidth(link: number, bytesPerSecond: number, nowSeconds: number): void {
    this.#bandwidths[link] = bytesPerSecond
    const flow = this.#queues[link]![this.#heads[link]!]
    if (flow === undefined) return
    const record = this.#flows[flow]!
    if (record.behind > 0) return
    if (nowSeconds > record.movingSince) {
      record.left = Math.max(0, record.left - record.rate * (nowSeconds - record.movingSince))
      record.movingSince = nowSeconds
    }
    this.#ends.move(flow, this.#endOf(record))
  }

  advance(seconds: number): void {
    this.#ends.advance(seconds)
    for (const flow of this.#flows) if (flow !== undefined) flow.movingSince -= seconds
    const since = this.#busySince
    for (let link = 0; link < since.length; link++) since[link]! -= seconds
  }

  linkBytes(link: number): number {
    return this.#linkBytes[link]!
  }

  linkBusySeconds(link: number, nowSeconds: number): number {
    const since = this.#busySince[link]!
    return this.#busySeconds[link]! + (Number.isNaN(since) ? 0 : nowSeconds - since)
  }

  stalled(): ReadonlyMap<number, ReadonlyArray<number>> {
    const found = new Map<number, ReadonlyArray<number>>()
    for (const [flow, record] of this.#flows.entries()) {
      if (record === undefined) continue
      const first = record.behind === 0
      const links = record.channel.links.filter((link) =>
        first ? this.#bandwidths[link] === 0 : this.#queues[link]![this.#heads[link]!] !== flow
      )
      if (links.length > 0) found.set(flow, links)
    }
    return found
  }

  #serve(flow: number, record: Flow, nowSeconds: number): void {
    for (const link of record.channel.links) this.#busySince[link] = nowSeconds
    record.movingSince = nowSeconds + record.latencySeconds
    this.#ends.push(this.#endOf(record), record.sequence, flow)
  }

  /** Sets the flow's rate from its slowest link and returns when it ends, Infinity while one of its links is down. */
  #endOf(record: Flow): number {
    const { links, weights, bytesPerSecondMax } = record.channel
    let rate = bytesPerSecondMax
    for (let i = 0; i < links.length; i++) rate = Math.min(rate, this.#bandwidths[links[i]!]! / weights[i]!)
    record.rate = rate
    return record.left === 0 ? record.movingSince : record.movingSince + record.left / rate
  }

  #leave(flow: number, nowSeconds: number): void {
    const { channel, bytes } = this.#flows[flow]!
    this.#flows[flow] = undefined
    for (let i = 0; i < channel.links.length; i++) {
      const link = channel.links[i]!
      this.#linkBytes[link]! += channel.weights[i]! * bytes
      this.#busySeconds[link]! += nowSeconds - this.#busySince[link]!
      this.#busySince[link] = NaN
      const queue = this.#queues[link]!
      const head = ++this.#heads[link]!
      if (head === queue.length) {
        queue.length = 0
        this.#heads[link] = 0
      } else if (head >= 1024 && 2 * head >= queue.length) {
        queue.splice(0, head)
        this.#heads[link] = 0
      }
    }
    for (const link of channel.links) {
      const next = this.#queues[link]![this.#heads[link]!]
      if (next === undefined) continue
      const record = this.#flows[next]!
      if (--record.behind === 0) this.#serve(next, record, nowSeconds)
    }
  }
}
