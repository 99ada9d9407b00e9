// Fluid network: flows share links max-min fairly, as in SimGrid's CM02 model with crosstraffic off and no TCP window.
// Knows channels, flows and shares; nothing of what a flow is for.
//
// Flows of one channel always have one rate, so a channel keeps the bytes that each of its flows would have got so far
// (a cumulative service curve) and its flows wait in a heap of the service level at which they end. All channels with
// the same bottleneck link also have one rate; the earliest end among them is the link's entry in the queue of ends.
// A change of rates therefore touches one number per channel and one queue entry per link, never a flow.

import { MaxMin } from "./max-min.ts"
import { SIMULTANEOUS, type Link, type Network, type WeightedLinks } from "./network.ts"

const NONE = -1

export class FluidNetwork implements Network {
  ended = new Int32Array(64)

  readonly #solver = new MaxMin()
  readonly #linkCount: number
  readonly #linkBytes: Float64Array
  readonly #busySeconds: Float64Array
  readonly #busySince: Float64Array // NaN while idle
  #nowSeconds = 0

  // Per channel.
  #served = new Float64Array(16) // bytes each flow of the channel has got since the channel was last empty
  #servedAt = new Float64Array(16) // when that was true
  #speeds = new Float64Array(16) // rate in force since then
  #endsAt = new Float64Array(16) // when the first of its flows ends
  #firstFlows = new Int32Array(16).fill(NONE) // root of a pairing heap by level
  #flowCounts = new Int32Array(16)
  #marks = new Uint8Array(16)
  #touched = new Int32Array(16)
  #touchedCount = 0

  // Per flow in the network; slots are recycled through a free list.
  #levels = new Float64Array(64)
  #bytes = new Float64Array(64)
  #owners = new Int32Array(64)
  #children = new Int32Array(64)
  #siblings = new Int32Array(64)
  #flowSlots = 0
  #freeFlow = NONE

  // Queue of ends: a binary heap of links by the first end among the channels they limit.
  #queue = new Int32Array(16)
  #queueSize = 0
  #queuePositions = new Int32Array(16).fill(NONE) // per link
  #queueTimes = new Float64Array(16) // per link
  #unlimited = 0 // channels limited by nothing: their flows end at once
  #unlimitedChannels: Array<number> = []
  #stale: Array<number> = [] // links whose first end must be found again unless the next solve does it

  constructor(links: ReadonlyArray<Link>) {
    for (const link of links) this.#solver.addLink(link.bytesPerSecond)
    this.#linkCount = links.length
    this.#linkBytes = new Float64Array(links.length)
    this.#busySeconds = new Float64Array(links.length)
    this.#busySince = new Float64Array(links.length).fill(NaN)
    this.#growLinks()
    this.#solver.onLinkBusy = (link) => {
      if (link < this.#linkCount) this.#busySince[link] = this.#nowSeconds
    }
    this.#solver.onLinkIdle = (link) => {
      if (link >= this.#linkCount) return
      this.#busySeconds[link]! += this.#nowSeconds - this.#busySince[link]!
      this.#busySince[link] = NaN
    }
  }

  channel(route: WeightedLinks, bytesPerSecondMax: number): number {
    const channel = this.#solver.addVariable(route.links, route.weights, bytesPerSecondMax)
    if (channel === this.#served.length) this.#growChannels()
    this.#growLinks()
    return channel
  }

  join(flow: number, channel: number, bytes: number, _latencySeconds: number, nowSeconds: number): void {
    if (this.#flowCounts[channel]!++ === 0) {
      // Counting from zero in every busy period keeps the levels, and their rounding, small.
      this.#served[channel] = 0
      this.#servedAt[channel] = nowSeconds
      this.#speeds[channel] = 0
    } else this.#advance(channel, nowSeconds)
    const f = this.#allocateFlow()
    this.#levels[f] = this.#served[channel]! + bytes
    this.#bytes[f] = bytes
    this.#owners[f] = flow
    this.#children[f] = NONE
    this.#siblings[f] = NONE
    this.#firstFlows[channel] = this.#meld(this.#firstFlows[channel]!, f)
    this.#solver.addFlows(channel, 1)
    this.#touch(channel)
  }

  nextEndSeconds(): number {
    if (this.#unlimited > 0) return this.#nowSeconds
    return this.#queueSize === 0 ? Infinity : this.#queueTimes[this.#queue[0]!]!
  }

  takeEnded(nowSeconds: number): number {
    const limit = nowSeconds * SIMULTANEOUS
    let count = 0
    if (this.#unlimited > 0) {
      for (const channel of this.#unlimitedChannels) {
        if (this.#solver.rates[channel] === Infinity)
          count = this.#takeFromChannel(channel, nowSeconds, Infinity, count)
      }
      this.#unlimited = 0
      this.#unlimitedChannels.length = 0
    }
    const { members, memberCounts, bottlenecks } = this.#solver
    while (this.#queueSize > 0) {
      const link = this.#queue[0]!
      if (this.#queueTimes[link]! > limit) break
      const onLink = members[link]!
      const n = memberCounts[link]!
      for (let i = 0; i < n; i++) {
        const channel = onLink[i]!
        if (bottlenecks[channel] === link && this.#endsAt[channel]! <= limit)
          count = this.#takeFromChannel(channel, nowSeconds, limit - nowSeconds, count)
      }
      this.#dequeue(link)
      this.#stale.push(link)
    }
    return count
  }

  settle(nowSeconds: number): void {
    this.#nowSeconds = nowSeconds
    const solver = this.#solver
    solver.solve()
    const { rates, solved, groupLinks, groupEnds, affected } = solver
    const endsAt = this.#endsAt
    const speeds = this.#speeds
    const served = this.#served
    const servedAt = this.#servedAt
    const levels = this.#levels
    const firstFlows = this.#firstFlows
    const marks = this.#marks
    // One entry at a time: the queue is in order whenever an entry moves.
    for (let a = 0, n = solver.affectedCount; a < n; a++)
      if (solver.levels[affected[a]!] === Infinity) this.#dequeue(affected[a]!)
    let start = 0
    for (let g = 0, groups = solver.groupCount; g < groups; g++) {
      const end = groupEnds[g]!
      const link = groupLinks[g]!
      if (link === NONE) {
        for (let i = start; i < end; i++) {
          this.#advance(solved[i]!, nowSeconds)
          speeds[solved[i]!] = Infinity
          this.#unlimitedChannels.push(solved[i]!)
        }
        this.#unlimited += end - start
        start = end
        continue
      }
      const rate = rates[solved[start]!]!
      let first = Infinity
      for (let i = start; i < end; i++) {
        const channel = solved[i]!
        const before = speeds[channel]!
        let at: number
        if (before === rate && marks[channel] === 0) at = endsAt[channel]!
        else {
          const since = servedAt[channel]!
          let level = served[channel]!
          if (since !== nowSeconds) {
            level += before * (nowSeconds - since)
            served[channel] = level
            servedAt[channel] = nowSeconds
          }
          speeds[channel] = rate
          const left = levels[firstFlows[channel]!]! - level
          at = left <= 0 ? nowSeconds : nowSeconds + left / rate
          endsAt[channel] = at
        }
        if (at < first) first = at
      }
      this.#requeue(link, first)
      start = end
    }
    // A channel that lost as many flows as it gained was not solved again, but ends at another time.
    for (let i = 0; i < this.#touchedCount; i++) {
      const channel = this.#touched[i]!
      marks[channel] = 0
      if (this.#flowCounts[channel] === 0 || servedAt[channel] !== nowSeconds) continue
      // A channel that was empty for an instant forgot its speed when it was joined again.
      const rate = solver.rates[channel]!
      speeds[channel] = rate
      if (rate === Infinity) continue
      const left = levels[firstFlows[channel]!]! - served[channel]!
      const at = left <= 0 ? nowSeconds : nowSeconds + left / rate
      if (at !== endsAt[channel]) {
        endsAt[channel] = at
        this.#stale.push(solver.bottlenecks[channel]!)
      }
    }
    this.#touchedCount = 0
    for (const link of this.#stale) if (!solver.isAffected(link)) this.#refresh(link)
    this.#stale.length = 0
  }

  setBandwidth(link: number, bytesPerSecond: number, _nowSeconds: number): void {
    this.#solver.setCapacity(link, bytesPerSecond)
  }

  linkBytes(link: number): number {
    return this.#linkBytes[link]!
  }

  linkBusySeconds(link: number, nowSeconds: number): number {
    const since = this.#busySince[link]!
    return this.#busySeconds[link]! + (Number.isNaN(since) ? 0 : nowSeconds - since)
  }

  stalledBy(flow: number): ReadonlyArray<number> {
    const { variableCount, rates, capacities, incidenceStarts, incidenceLinks } = this.#solver
    for (let channel = 0; channel < variableCount; channel++) {
      if (this.#flowCounts[channel] === 0 || rates[channel] !== 0) continue
      if (!this.#holds(this.#firstFlows[channel]!, flow)) continue
      const links = incidenceLinks.slice(incidenceStarts[channel], incidenceStarts[channel + 1]!)
      return [...links].filter((link) => link < this.#linkCount && capacities[link] === 0)
    }
    return []
  }

  /** Is the flow in this pairing heap? */
  #holds(root: number, flow: number): boolean {
    for (let f = root; f !== NONE; f = this.#siblings[f]!)
      if (this.#owners[f] === flow || this.#holds(this.#children[f]!, flow)) return true
    return false
  }

  /** Takes the flows of a channel that end within `slackSeconds` of now. */
  #takeFromChannel(channel: number, nowSeconds: number, slackSeconds: number, endedCount: number): number {
    const rate = this.#speeds[channel]!
    let first = this.#firstFlows[channel]!
    this.#advance(channel, nowSeconds)
    // The channel's first flow ends now by definition; its level, not the rounded integral, is what has been served.
    if (rate !== Infinity && this.#served[channel]! < this.#levels[first]!)
      this.#served[channel] = this.#levels[first]!
    const levelMax = rate === Infinity ? Infinity : this.#served[channel]! + rate * slackSeconds
    const { incidenceStarts: starts, incidenceLinks: links, incidenceWeights: weights } = this.#solver
    let count = endedCount
    while (first !== NONE && this.#levels[first]! <= levelMax) {
      if (count === this.ended.length) {
        const longer = new Int32Array(count * 2)
        longer.set(this.ended)
        this.ended = longer
      }
      this.ended[count++] = this.#owners[first]!
      const bytes = this.#bytes[first]!
      for (let p = starts[channel]!, end = starts[channel + 1]!; p < end; p++) {
        const link = links[p]!
        if (link < this.#linkCount) this.#linkBytes[link]! += weights[p]! * bytes
      }
      this.#flowCounts[channel]!--
      this.#solver.addFlows(channel, -1)
      const next = this.#mergePairs(this.#children[first]!)
      this.#siblings[first] = this.#freeFlow
      this.#freeFlow = first
      first = next
    }
    this.#firstFlows[channel] = first
    this.#touch(channel)
    return count
  }

  #advance(channel: number, nowSeconds: number): void {
    const since = this.#servedAt[channel]!
    if (since === nowSeconds) return
    this.#served[channel]! += this.#speeds[channel]! * (nowSeconds - since)
    this.#servedAt[channel] = nowSeconds
  }

  #touch(channel: number): void {
    if (this.#marks[channel] === 1) return
    this.#marks[channel] = 1
    this.#touched[this.#touchedCount++] = channel
  }

  /** Finds the first end among the channels a link limits. */
  #refresh(link: number): void {
    const { members, memberCounts, bottlenecks } = this.#solver
    const onLink = members[link]!
    let first = Infinity
    for (let i = 0, n = memberCounts[link]!; i < n; i++) {
      const channel = onLink[i]!
      if (bottlenecks[channel] === link && this.#endsAt[channel]! < first) first = this.#endsAt[channel]!
    }
    this.#requeue(link, first)
  }

  #requeue(link: number, timeSeconds: number): void {
    if (timeSeconds === Infinity) return this.#dequeue(link)
    let at = this.#queuePositions[link]!
    if (at === NONE) at = this.#queueSize++
    this.#queueTimes[link] = timeSeconds
    this.#place(link, at)
  }

  #dequeue(link: number): void {
    const at = this.#queuePositions[link]!
    if (at === NONE) return
    this.#queuePositions[link] = NONE
    const last = this.#queue[--this.#queueSize]!
    if (last !== link) this.#place(last, at)
  }

  /** Puts a link into the queue at or near a position that is free for it. */
  #place(link: number, position: number): void {
    const queue = this.#queue
    const positions = this.#queuePositions
    const times = this.#queueTimes
    const size = this.#queueSize
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
    if (i === position) {
      for (;;) {
        let child = 2 * i + 1
        if (child >= size) break
        if (child + 1 < size && times[queue[child + 1]!]! < times[queue[child]!]!) child++
        const other = queue[child]!
        if (times[other]! >= time) break
        queue[i] = other
        positions[other] = i
        i = child
      }
    }
    queue[i] = link
    positions[link] = i
  }

  #meld(a: number, b: number): number {
    if (a === NONE) return b
    if (b === NONE) return a
    if (this.#levels[b]! < this.#levels[a]!) {
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
    if (this.#flowSlots === this.#levels.length) {
      const length = this.#flowSlots * 2
      this.#levels = grown64(this.#levels, length)
      this.#bytes = grown64(this.#bytes, length)
      this.#owners = grown32(this.#owners, length)
      this.#children = grown32(this.#children, length)
      this.#siblings = grown32(this.#siblings, length)
    }
    return this.#flowSlots++
  }

  #growChannels(): void {
    const length = this.#served.length * 2
    this.#served = grown64(this.#served, length)
    this.#servedAt = grown64(this.#servedAt, length)
    this.#speeds = grown64(this.#speeds, length)
    this.#endsAt = grown64(this.#endsAt, length)
    this.#firstFlows = grown32(this.#firstFlows, length, NONE)
    this.#flowCounts = grown32(this.#flowCounts, length)
    this.#touched = grown32(this.#touched, length)
    const marks = new Uint8Array(length)
    marks.set(this.#marks)
    this.#marks = marks
  }

  #growLinks(): void {
    const wanted = this.#solver.linkCount
    if (wanted <= this.#queue.length) return
    const length = Math.max(wanted, this.#queue.length * 2)
    this.#queue = grown32(this.#queue, length)
    this.#queuePositions = grown32(this.#queuePositions, length, NONE)
    this.#queueTimes = grown64(this.#queueTimes, length)
  }
}

function grown64(array: Float64Array<ArrayBuffer>, length: number): Float64Array<ArrayBuffer> {
  const longer = new Float64Array(length)
  longer.set(array)
  return longer
}

function grown32(array: Int32Array<ArrayBuffer>, length: number, fill = 0): Int32Array<ArrayBuffer> {
  const longer = new Int32Array(length)
  if (fill !== 0) longer.fill(fill)
  longer.set(array)
  return longer
}
