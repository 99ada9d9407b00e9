// Fluid network: flows share links max-min fairly, as in SimGrid's CM02 model with crosstraffic off.
// Knows channels, flows and shares; nothing of what a flow is for.
//
// Three nested clocks make a change of rates cost one number per link that changed, however many flows it carries:
// - all channels that a link limits have the same rate, so the link counts the bytes each of them would have got
//   (its service, the integral of its level);
// - a channel's own service is that of its bottleneck minus a base, which changes only when its bottleneck does;
// - all flows of a channel have the same rate, so a flow ends when the channel's service reaches a fixed amount.
// Flows wait in a heap per channel, channels in a heap per link that limits them, links in one heap by time.

import { MaxMin } from "./max-min.ts"
import { SIMULTANEOUS, type Link, type Network, type WeightedLinks } from "./network.ts"
import { grownFloat64 as float64, grownInt32 as int32, grownUint8 as uint8 } from "./grown.ts"

const NONE = -1

export class FluidNetwork implements Network {
  ended = new Int32Array(64)

  readonly #solver = new MaxMin()
  readonly #linkCount: number
  readonly #linkBytes: Float64Array
  readonly #busySeconds: Float64Array
  readonly #busySince: Float64Array
  readonly #active: Int32Array // channels with flows on the link
  #nowSeconds = 0

  // Per channel.
  #flowCounts = new Int32Array(16)
  #countedActive = new Uint8Array(16) // in #active
  #firstFlows = new Int32Array(16).fill(NONE) // root of a pairing heap by amount
  #classes = new Int32Array(16).fill(NONE) // link in whose heap of channels it is
  #positions = new Int32Array(16) // in that heap
  #bases = new Float64Array(16) // service of that link - service of the channel
  #endsAt = new Float64Array(16) // service of that link at which the channel's first flow ends
  #served = new Float64Array(16) // service of the channel while it is in no heap
  #touchedMarks = new Uint8Array(16)
  #touched = new Int32Array(16)
  #touchedCount = 0
  #unlimited: Array<number> = [] // channels that nothing limits: their flows end at once

  // Per link, private links of limited channels included.
  #services = new Float64Array(16)
  #servicesAt = new Float64Array(16) // seconds
  #speeds = new Float64Array(16) // level in force since then
  #channels: Array<Int32Array<ArrayBuffer>> = [] // binary heap by #endsAt of the channels it limits
  #channelCounts = new Int32Array(16)
  #dirtyMarks = new Uint8Array(16)
  #dirty = new Int32Array(16)
  #dirtyCount = 0

  // Links by the time of their first end: a binary heap with positions.
  #queue = new Int32Array(16)
  #queueSize = 0
  #queuePositions = new Int32Array(16).fill(NONE)
  #queueTimes = new Float64Array(16)

  // Per flow in the network; recycled through a free list.
  #amounts = new Float64Array(64) // service of its channel at which it ends
  #bytes = new Float64Array(64)
  #owners = new Int32Array(64)
  #children = new Int32Array(64)
  #siblings = new Int32Array(64)
  #flowSlots = 0
  #freeFlow = NONE

  constructor(links: ReadonlyArray<Link>) {
    for (const link of links) this.#solver.addLink(link.bytesPerSecond)
    this.#linkCount = links.length
    this.#linkBytes = new Float64Array(links.length)
    this.#busySeconds = new Float64Array(links.length)
    this.#busySince = new Float64Array(links.length)
    this.#active = new Int32Array(links.length)
    this.#growLinks()
  }

  channel(route: WeightedLinks, bytesPerSecondMax: number): number {
    const channel = this.#solver.addVariable(route.links, route.weights, bytesPerSecondMax)
    if (channel === this.#flowCounts.length) this.#growChannels()
    this.#growLinks()
    return channel
  }

  join(flow: number, channel: number, bytes: number, _latencySeconds: number, nowSeconds: number): void {
    this.#touch(channel, nowSeconds)
    // Counting from zero in every busy period keeps the amounts, and their rounding, small.
    if (this.#flowCounts[channel]!++ === 0) this.#served[channel] = 0
    const f = this.#allocateFlow()
    this.#amounts[f] = this.#served[channel]! + bytes
    this.#bytes[f] = bytes
    this.#owners[f] = flow
    this.#children[f] = NONE
    this.#siblings[f] = NONE
    this.#firstFlows[channel] = this.#meld(this.#firstFlows[channel]!, f)
    this.#solver.addFlows(channel, 1)
  }

  nextEndSeconds(): number {
    if (this.#unlimited.length > 0) return this.#nowSeconds
    return this.#queueSize === 0 ? Infinity : this.#queueTimes[this.#queue[0]!]!
  }

  takeEnded(nowSeconds: number): number {
    let count = 0
    if (this.#unlimited.length > 0) {
      for (const channel of this.#unlimited) {
        this.#touch(channel, nowSeconds)
        if (this.#flowCounts[channel]! > 0 && this.#solver.rate(channel) === Infinity)
          count = this.#takeFlows(channel, Infinity, count)
      }
      this.#unlimited.length = 0
    }
    const limit = nowSeconds * SIMULTANEOUS
    while (this.#queueSize > 0) {
      const link = this.#queue[0]!
      if (this.#queueTimes[link]! > limit) break
      this.#advance(link, nowSeconds)
      const channels = this.#channels[link]!
      // The first of them ends now by definition: its amount, not the rounded integral, is what has been served.
      const first = this.#endsAt[channels[0]!]!
      if (this.#services[link]! < first) this.#services[link] = first
      const slack = limit > nowSeconds ? this.#speeds[link]! * (limit - nowSeconds) : 0
      const serviceMax = this.#services[link]! + slack
      while (this.#channelCounts[link]! > 0 && this.#endsAt[channels[0]!]! <= serviceMax) {
        const channel = channels[0]!
        this.#touch(channel, nowSeconds)
        count = this.#takeFlows(
          channel,
          Math.max(this.#served[channel]!, this.#firstAmount(channel)) + slack,
          count
        )
      }
      this.#dequeue(link)
      this.#markDirty(link)
    }
    return count
  }

  settle(nowSeconds: number): void {
    this.#nowSeconds = nowSeconds
    const solver = this.#solver
    solver.solve()
    const { bottlenecks, movedVariables, changedLinks, levels } = solver
    for (let i = 0, n = solver.movedCount; i < n; i++) this.#touch(movedVariables[i]!, nowSeconds)
    for (let i = 0, n = this.#touchedCount; i < n; i++) {
      const channel = this.#touched[i]!
      this.#touchedMarks[channel] = 0
      const active = this.#flowCounts[channel]! > 0
      if ((this.#countedActive[channel] === 1) !== active) this.#countActive(channel, active)
      if (!active) continue
      const link = bottlenecks[channel]!
      // A link that became unlimited may still stand as the one that would limit the channel.
      if (link === NONE || levels[link] === Infinity) this.#unlimited.push(channel)
      else this.#insertChannel(channel, link, nowSeconds)
    }
    this.#touchedCount = 0
    for (let i = 0, n = solver.changedLinkCount; i < n; i++) {
      const link = changedLinks[i]!
      this.#advance(link, nowSeconds)
      this.#speeds[link] = levels[link]!
      this.#markDirty(link)
    }
    for (let i = 0, n = this.#dirtyCount; i < n; i++) {
      const link = this.#dirty[i]!
      this.#dirtyMarks[link] = 0
      if (this.#channelCounts[link] === 0) {
        this.#dequeue(link)
        continue
      }
      this.#advance(link, nowSeconds)
      const left = this.#endsAt[this.#channels[link]![0]!]! - this.#services[link]!
      this.#enqueue(link, left > 0 ? nowSeconds + left / this.#speeds[link]! : nowSeconds)
    }
    this.#dirtyCount = 0
  }

  setBandwidth(link: number, bytesPerSecond: number, _nowSeconds: number): void {
    this.#solver.setCapacity(link, bytesPerSecond)
    this.#growLinks()
  }

  advance(seconds: number): void {
    this.#nowSeconds -= seconds
    for (let link = 0; link < this.#busySince.length; link++) this.#busySince[link]! -= seconds
    for (let link = 0, n = this.#solver.linkCount; link < n; link++) {
      this.#servicesAt[link]! -= seconds
      this.#queueTimes[link]! -= seconds
      if (this.#channelCounts[link]! > 0) this.#advanceService(link)
    }
  }

  /** Makes a link's service half of what it is, and that of the channels it limits, so that both are counted finely. */
  #advanceService(link: number): void {
    const half = this.#services[link]! / 2
    this.#services[link]! -= half
    for (let i = 0, n = this.#channelCounts[link]!; i < n; i++) {
      const channel = this.#channels[link]![i]!
      this.#endsAt[channel]! -= half
      this.#bases[channel]! -= half
    }
  }

  linkBytes(link: number): number {
    return this.#linkBytes[link]!
  }

  linkBusySeconds(link: number, nowSeconds: number): number {
    return this.#busySeconds[link]! + (this.#active[link] === 0 ? 0 : nowSeconds - this.#busySince[link]!)
  }

  stalled(): ReadonlyMap<number, ReadonlyArray<number>> {
    const found = new Map<number, ReadonlyArray<number>>()
    const { variableCount, capacities, incidenceStarts, incidenceLinks } = this.#solver
    for (let channel = 0; channel < variableCount; channel++) {
      if (this.#flowCounts[channel] === 0 || this.#solver.rate(channel) !== 0) continue
      const links = incidenceLinks.slice(incidenceStarts[channel], incidenceStarts[channel + 1]!)
      const down = [...links].filter((link) => link < this.#linkCount && capacities[link] === 0)
      if (down.length === 0) continue
      // Its pairing heap may be as deep as it has flows.
      const open = [this.#firstFlows[channel]!]
      for (let f = open.pop(); f !== undefined; f = open.pop()) {
        if (f === NONE) continue
        found.set(this.#owners[f]!, down)
        open.push(this.#siblings[f]!, this.#children[f]!)
      }
    }
    return found
  }

  /** Takes a channel whose flows or bottleneck change out of its link's heap, until `settle` puts it back. */
  #touch(channel: number, nowSeconds: number): void {
    if (this.#touchedMarks[channel] === 1) return
    this.#touchedMarks[channel] = 1
    this.#touched[this.#touchedCount++] = channel
    const link = this.#classes[channel]!
    if (link === NONE) return
    this.#advance(link, nowSeconds)
    this.#served[channel] = this.#services[link]! - this.#bases[channel]!
    this.#removeChannel(channel, link)
    this.#markDirty(link)
  }

  #firstAmount(channel: number): number {
    return this.#amounts[this.#firstFlows[channel]!]!
  }

  /** Ends the flows of a touched channel whose amount is at most so much. */
  #takeFlows(channel: number, amountMax: number, endedCount: number): number {
    const { incidenceStarts, incidenceLinks, incidenceWeights } = this.#solver
    let first = this.#firstFlows[channel]!
    let count = endedCount
    while (first !== NONE && this.#amounts[first]! <= amountMax) {
      if (count === this.ended.length) this.ended = int32(this.ended, 2 * count)
      this.ended[count++] = this.#owners[first]!
      const bytes = this.#bytes[first]!
      for (let p = incidenceStarts[channel]!, end = incidenceStarts[channel + 1]!; p < end; p++) {
        const link = incidenceLinks[p]!
        if (link < this.#linkCount) this.#linkBytes[link]! += incidenceWeights[p]! * bytes
      }
      const next = this.#mergePairs(this.#children[first]!)
      this.#siblings[first] = this.#freeFlow
      this.#freeFlow = first
      first = next
    }
    this.#firstFlows[channel] = first
    this.#flowCounts[channel]! -= count - endedCount
    this.#solver.addFlows(channel, endedCount - count)
    return count
  }

  #countActive(channel: number, active: boolean): void {
    this.#countedActive[channel] = active ? 1 : 0
    const { incidenceStarts, incidenceLinks } = this.#solver
    for (let p = incidenceStarts[channel]!, end = incidenceStarts[channel + 1]!; p < end; p++) {
      const link = incidenceLinks[p]!
      if (link >= this.#linkCount) continue
      if (active) {
        if (this.#active[link]!++ === 0) this.#busySince[link] = this.#nowSeconds
      } else if (--this.#active[link]! === 0)
        this.#busySeconds[link]! += this.#nowSeconds - this.#busySince[link]!
    }
  }

  /** Brings a link's service up to date. */
  #advance(link: number, nowSeconds: number): void {
    const since = this.#servicesAt[link]!
    if (since === nowSeconds) return
    this.#servicesAt[link] = nowSeconds
    if (this.#channelCounts[link]! > 0) this.#services[link]! += this.#speeds[link]! * (nowSeconds - since)
  }

  #insertChannel(channel: number, link: number, nowSeconds: number): void {
    this.#advance(link, nowSeconds)
    const n = this.#channelCounts[link]!++
    if (n === 0) this.#services[link] = 0 // nobody refers to it: begin anew, with small numbers
    if (n === this.#channels[link]!.length) this.#channels[link] = int32(this.#channels[link]!, 2 * n)
    const base = this.#services[link]! - this.#served[channel]!
    this.#classes[channel] = link
    this.#bases[channel] = base
    this.#endsAt[channel] = base + this.#firstAmount(channel)
    this.#placeChannel(channel, link, n)
    this.#markDirty(link)
  }

  #removeChannel(channel: number, link: number): void {
    this.#classes[channel] = NONE
    const n = --this.#channelCounts[link]!
    const last = this.#channels[link]![n]!
    if (last !== channel) this.#placeChannel(last, link, this.#positions[channel]!)
  }

  /** Puts a channel into its link's heap at or near a position that is free for it. */
  #placeChannel(channel: number, link: number, position: number): void {
    const heap = this.#channels[link]!
    const positions = this.#positions
    const ends = this.#endsAt
    const size = this.#channelCounts[link]!
    const end = ends[channel]!
    let i = position
    while (i > 0) {
      const parent = (i - 1) >> 1
      const other = heap[parent]!
      if (ends[other]! <= end) break
      heap[i] = other
      positions[other] = i
      i = parent
    }
    if (i === position) i = siftedDown(heap, positions, ends, size, i, end)
    heap[i] = channel
    positions[channel] = i
  }

  #markDirty(link: number): void {
    if (this.#dirtyMarks[link] === 1) return
    this.#dirtyMarks[link] = 1
    this.#dirty[this.#dirtyCount++] = link
  }

  /** Enters the time of the first end among the channels a link limits, or changes it. */
  #enqueue(link: number, timeSeconds: number): void {
    if (timeSeconds === Infinity) return this.#dequeue(link)
    this.#queueTimes[link] = timeSeconds
    const at = this.#queuePositions[link]!
    this.#place(link, at === NONE ? this.#queueSize++ : at)
  }

  #dequeue(link: number): void {
    const at = this.#queuePositions[link]!
    if (at === NONE) return
    this.#queuePositions[link] = NONE
    const last = this.#queue[--this.#queueSize]!
    if (last !== link) this.#place(last, at)
  }

  #place(link: number, position: number): void {
    const queue = this.#queue
    const positions = this.#queuePositions
    const times = this.#queueTimes
    const time = times[link]!
    let i = position
    while (i > 0) {
      const parent = (i - 1) >> 1
      const other = queue[parent]!
      if (times[other]! <= time) break
      queue[i] = other
      positions[other] = i
      i = parent
    }
    if (i === position) i = siftedDown(queue, positions, times, this.#queueSize, i, time)
    queue[i] = link
    positions[link] = i
  }

  #meld(a: number, b: number): number {
    if (a === NONE) return b
    if (b === NONE) return a
    if (this.#amounts[b]! < this.#amounts[a]!) {
      this.#siblings[a] = this.#children[b]!
      this.#children[b] = a
      return b
    }
    this.#siblings[b] = this.#children[a]!
    this.#children[a] = b
    return a
  }

  /** The pairing heap's two passes: meld neighbours left to right, then the pairs right to left. */
  #mergePairs(first: number): number {
    let pairs = NONE
    let next = first
    while (next !== NONE) {
      const a = next
      const b = this.#siblings[a]!
      next = b === NONE ? NONE : this.#siblings[b]!
      this.#siblings[a] = NONE
      if (b !== NONE) this.#siblings[b] = NONE
      const pair = this.#meld(a, b)
      this.#siblings[pair] = pairs
      pairs = pair
    }
    let root = NONE
    while (pairs !== NONE) {
      const pair = pairs
      pairs = this.#siblings[pair]!
      this.#siblings[pair] = NONE
      root = this.#meld(root, pair)
    }
    return root
  }

  #allocateFlow(): number {
    if (this.#freeFlow !== NONE) {
      const f = this.#freeFlow
      this.#freeFlow = this.#siblings[f]!
      return f
    }
    if (this.#flowSlots === this.#amounts.length) {
      const length = this.#flowSlots * 2
      this.#amounts = float64(this.#amounts, length)
      this.#bytes = float64(this.#bytes, length)
      this.#owners = int32(this.#owners, length)
      this.#children = int32(this.#children, length)
      this.#siblings = int32(this.#siblings, length)
    }
    return this.#flowSlots++
  }

  #growChannels(): void {
    const length = this.#flowCounts.length * 2
    this.#flowCounts = int32(this.#flowCounts, length)
    this.#countedActive = uint8(this.#countedActive, length)
    this.#firstFlows = int32(this.#firstFlows, length, NONE)
    this.#classes = int32(this.#classes, length, NONE)
    this.#positions = int32(this.#positions, length)
    this.#bases = float64(this.#bases, length)
    this.#endsAt = float64(this.#endsAt, length)
    this.#served = float64(this.#served, length)
    this.#touchedMarks = uint8(this.#touchedMarks, length)
    this.#touched = int32(this.#touched, length)
  }

  #growLinks(): void {
    const wanted = this.#solver.linkCount
    while (this.#channels.length < wanted) this.#channels.push(new Int32Array(1))
    if (wanted <= this.#queue.length) return
    const length = Math.max(wanted, this.#queue.length * 2)
    this.#services = float64(this.#services, length)
    this.#servicesAt = float64(this.#servicesAt, length)
    this.#speeds = float64(this.#speeds, length)
    this.#channelCounts = int32(this.#channelCounts, length)
    this.#dirtyMarks = uint8(this.#dirtyMarks, length)
    this.#dirty = int32(this.#dirty, length)
    this.#queue = int32(this.#queue, length)
    this.#queuePositions = int32(this.#queuePositions, length, NONE)
    this.#queueTimes = float64(this.#queueTimes, length)
  }
}

/** Moves entries of a binary heap up out of the way of one with `key` that sinks from `start`; returns its place. */
function siftedDown(
  heap: Int32Array,
  positions: Int32Array,
  keys: Float64Array,
  size: number,
  start: number,
  key: number
): number {
  let i = start
  for (;;) {
    let child = 2 * i + 1
    if (child >= size) return i
    let other = heap[child]!
    if (child + 1 < size && keys[heap[child + 1]!]! < keys[other]!) other = heap[++child]!
    if (keys[other]! >= key) return i
    heap[i] = other
    positions[other] = i
    i = child
  }
}
