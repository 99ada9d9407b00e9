// Max-min fair rates, kept up to date by local repair.
// Knows variables (how many equal flows, on which links, with which weights) and link capacities; nothing of time,
// bytes or activities.
//
// A variable v stands for `count` flows that share one rate x each; on link l it uses weight * count * x. An allocation
// is max-min fair exactly when every variable has a *bottleneck*: a saturated link on which no variable is faster
// (Bertsekas & Gallager, Data Networks, 6.5.2). So the state is one *level* per link, Infinity while it limits nobody,
// and one bottleneck per variable, whose rate is that link's level; and it is fair when
//   (1) sum of load * rate = capacity on every link that limits somebody, and <= capacity on every other;
//   (2) no variable is faster than the level of any of its links.
// After a change the links it touches are looked at again, lowest level first. Each finds the level that satisfies (1)
// with the others as they are, takes over the variables that break (2), and if its level moved passes the question on
// to the other links of the variables it limits. Nothing else is looked at: most changes move levels and hardly any
// bottleneck. When no question is left, (1) and (2) hold everywhere. Should that ever take too long (no case is known),
// progressive filling from zero settles it.
//
// A link that provably never saturates is left out: see `#admit`.

import { grownFloat64 as float64, grownInt32 as int32, grownUint8 as uint8 } from "./grown.ts"
import { LevelQueue } from "./level-queue.ts"
import { progressiveFilling } from "./progressive-filling.ts"

const NONE = -1
const SEVERAL = -2
/** A rate exceeds a level when it does so by more than rounding; levels this close are one. */
const TOLERANCE = 1e-13
const CEILING = 1 + TOLERANCE
/** Share of the capacity up to which a running total, which gathers rounding, proves that a link is not full. */
const NEARLY_FULL = 1 - 1e-9
/** A level that moves by less than this, relatively, has not moved. */
const STILL = 2 ** -50

/** Incremental max-min solver. Links and variables are dense integers in order of creation. */
export class MaxMin {
  linkCount = 0
  /** bytes/s; Infinity never saturates; 0 stops its flows. Read-only to others: use `setCapacity`. */
  capacities = new Float64Array(16)
  /** Rate of each flow that the link limits, after the last `solve`; Infinity when it limits none. */
  levels = new Float64Array(16)

  variableCount = 0
  counts = new Int32Array(16)
  /** The link that limits the variable after the last `solve`; -1 when it has no flows or nothing limits them. */
  bottlenecks = new Int32Array(16)
  /** Variable v uses incidenceLinks[p] with incidenceWeights[p] for p in incidenceStarts[v] .. incidenceStarts[v + 1]. */
  incidenceStarts = new Int32Array(17)
  incidenceLinks = new Int32Array(32)
  incidenceWeights = new Float64Array(32)

  /** Result of the last `solve`: links whose level changed, and variables whose bottleneck did. */
  changedLinks = new Int32Array(16)
  changedLinkCount = 0
  movedVariables = new Int32Array(16)
  movedCount = 0
  /** How often `solve` fell back on filling from zero. */
  refills = 0
  /** Looks at one link, over all solves. */
  evaluations = 0

  // Per link.
  #rateMaxs = new Float64Array(16) // NaN: a real link; otherwise the private link of a variable with a rate limit
  #limiting = new Uint8Array(16) // may saturate, so takes part
  #whole = new Uint8Array(16).fill(1) // all weights on it are integers, so that sums of loads are exact
  #ownLoads = new Float64Array(16)
  #spreadCounts = new Int32Array(16) // of the variables it limits: how many have other limiting links
  #totals = new Float64Array(16) // of a link that limits nobody: load * rate of all, to within rounding; of others NaN
  #own: Array<Int32Array<ArrayBuffer>> = [] // incidences of the variables it limits
  #ownOthers: Array<Int32Array<ArrayBuffer>> = [] // beside #own: the variable's one other limiting link, or NONE, SEVERAL
  #ownOtherLoads: Array<Float64Array<ArrayBuffer>> = [] // its weight * count there
  #ownCounts = new Int32Array(16)
  #cross: Array<Int32Array<ArrayBuffer>> = [] // incidences of the variables limited elsewhere
  #crossLinks: Array<Int32Array<ArrayBuffer>> = [] // by which link
  #crossLoads: Array<Float64Array<ArrayBuffer>> = [] // weight * count
  #crossCounts = new Int32Array(16)
  #incidences: Array<Array<number>> = [] // all that were ever registered
  #demands: Array<Map<number, number>> = [] // see #admit
  #changedMarks = new Uint8Array(16)

  // Per variable.
  #applied = new Int32Array(16) // count as entered into the links
  #limitingEnds = new Int32Array(16) // incidences on limiting links come first
  #touchedMarks = new Uint8Array(16)
  #touched = new Int32Array(16)
  #touchedCount = 0
  #movedMarks = new Uint8Array(16)
  #adopted: Array<number> = [] // had no bottleneck until one of their links took part

  // Per incidence.
  #incidenceVariables = new Int32Array(32)
  #positions = new Int32Array(32) // in #own or #cross of its link

  /** Links to look at. */
  readonly #queue = new LevelQueue()

  /** Adds a link of so many bytes/s. */
  addLink(bytesPerSecond: number): number {
    return this.#addLink(bytesPerSecond, NaN)
  }

  /**
   * Adds a variable without flows. `links` must be distinct; `weights` positive, one per link (default 1 each);
   * `rateMax` bounds the rate of each of its flows.
   */
  addVariable(links: ArrayLike<number>, weights: ArrayLike<number> | undefined, rateMax: number): number {
    const v = this.variableCount++
    if (v === this.counts.length) this.#growVariables()
    this.bottlenecks[v] = NONE
    let end = this.incidenceStarts[v]!
    this.#limitingEnds[v] = end
    for (let i = 0; i < links.length; i++) this.#addIncidence(end++, v, links[i]!, weights?.[i] ?? 1)
    // A bound on the rate of each flow is a link of its own whose capacity follows the number of flows.
    if (rateMax !== Infinity) this.#addIncidence(end++, v, this.#addLink(0, rateMax), 1)
    this.incidenceStarts[v + 1] = end
    this.#admit(v)
    return v
  }

  /** Changes the number of flows of a variable by `by`; takes effect at the next `solve`. */
  addFlows(variable: number, by: number): void {
    this.counts[variable]! += by
    if (this.#touchedMarks[variable] === 1) return
    this.#touchedMarks[variable] = 1
    this.#touched[this.#touchedCount++] = variable
  }

  /** Changes a link's capacity; takes effect at the next `solve`. */
  setCapacity(link: number, bytesPerSecond: number): void {
    this.capacities[link] = bytesPerSecond
    // What never saturates may now: from here on every link that shares a variable with this one takes part.
    for (const incidence of this.#incidences[link]!) {
      const v = this.#incidenceVariables[incidence]!
      for (let p = this.incidenceStarts[v]!; p < this.incidenceStarts[v + 1]!; p++)
        this.#takePart(this.incidenceLinks[p]!)
    }
    this.#enqueue(link)
  }

  /** Rate of one flow of the variable after the last `solve`, bytes/s; 0 when it has none. */
  rate(variable: number): number {
    const link = this.bottlenecks[variable]!
    return link !== NONE ? this.levels[link]! : this.#applied[variable] === 0 ? 0 : Infinity
  }

  /** Brings levels and bottlenecks up to date with the changes since the last call, and lists what moved. */
  solve(): void {
    for (let i = 0; i < this.changedLinkCount; i++) this.#changedMarks[this.changedLinks[i]!] = 0
    for (let i = 0; i < this.movedCount; i++) this.#movedMarks[this.movedVariables[i]!] = 0
    this.changedLinkCount = 0
    this.movedCount = 0
    if (this.#adopted.length > 0) {
      for (const v of this.#adopted) this.#markMoved(v)
      this.#adopted.length = 0
    }
    for (let i = 0; i < this.#touchedCount; i++) {
      const v = this.#touched[i]!
      this.#touchedMarks[v] = 0
      if (this.counts[v] !== this.#applied[v]) this.#applyCount(v)
    }
    this.#touchedCount = 0
    // A question asked of a link is settled in one look, rarely two; the bound is generous and cheap to have.
    let left = 1000 + 50 * this.linkCount
    const queue = this.#queue
    while (queue.size > 0) {
      this.#evaluate(queue.pop(this.levels))
      if (--left === 0) return this.refill()
    }
  }

  /** Solves everything by progressive filling from zero: the definition, slow, independent of the state. */
  refill(): void {
    this.refills++
    const queue = this.#queue
    while (queue.size > 0) queue.pop(this.levels)
    const { levels, bottlenecks, remaining } = progressiveFilling({
      linkCount: this.linkCount,
      variableCount: this.variableCount,
      capacities: this.capacities,
      counts: this.counts,
      starts: this.incidenceStarts,
      ends: this.#limitingEnds,
      links: this.incidenceLinks,
      weights: this.incidenceWeights,
      variablesOn: (link) => this.#incidences[link]!.map((incidence) => this.#incidenceVariables[incidence]!)
    })
    for (let v = 0; v < this.variableCount; v++)
      if (bottlenecks[v] !== NONE && bottlenecks[v] !== this.bottlenecks[v]) this.#move(v, bottlenecks[v]!)
    while (queue.size > 0) queue.pop(this.levels)
    for (let l = 0; l < this.linkCount; l++) {
      if (levels[l] !== this.levels[l]) this.#setLevel(l, levels[l]!)
      this.#totals[l] = levels[l] === Infinity ? this.capacities[l]! - remaining[l]! : NaN
    }
  }

  /** Enters a changed number of flows into the links of the variable, which are all asked again. */
  #applyCount(v: number): void {
    const before = this.#applied[v]!
    const count = this.counts[v]!
    this.#applied[v] = count
    const start = this.incidenceStarts[v]!
    const end = this.#limitingEnds[v]!
    if (before === 0) {
      // For a start the variable goes to the link that now seems to limit it most.
      let least = NONE
      for (let p = start; p < end; p++) {
        const link = this.incidenceLinks[p]!
        if (least === NONE || this.levels[link]! < this.levels[least]!) least = link
      }
      this.#markMoved(v)
      this.bottlenecks[v] = least
      for (let p = start; p < end; p++) {
        if (this.incidenceLinks[p] === least) this.#insertOwn(p)
        else this.#insertCross(p, least)
      }
    } else if (count === 0) {
      const bottleneck = this.bottlenecks[v]!
      this.#markMoved(v)
      this.bottlenecks[v] = NONE
      for (let p = start; p < end; p++) {
        const link = this.incidenceLinks[p]!
        if (link === bottleneck) this.#removeOwn(p, before)
        else {
          this.#removeCross(p)
          // A link that was not full without need of this flow is not full without it.
          if (this.levels[link] === Infinity)
            this.#totals[link]! -= this.incidenceWeights[p]! * before * this.levels[bottleneck]!
          else this.#enqueue(link)
        }
      }
      if (bottleneck !== NONE) this.#enqueue(bottleneck)
    } else {
      const bottleneck = this.bottlenecks[v]!
      for (let p = start; p < end; p++) {
        const link = this.incidenceLinks[p]!
        const weight = this.incidenceWeights[p]!
        if (link === bottleneck) {
          this.#ownLoads[link]! += weight * (count - before)
          this.#noteOther(p)
        } else this.#crossLoads[link]![this.#positions[p]!] = weight * count
      }
    }
    for (let p = start, last = this.incidenceStarts[v + 1]!; p < last; p++) {
      const link = this.incidenceLinks[p]!
      const rateMax = this.#rateMaxs[link]!
      if (!Number.isNaN(rateMax)) this.capacities[link] = rateMax * count
      if (count > 0) this.#enqueue(link)
    }
  }

  /** Finds the level of a link, given those of the others. */
  #evaluate(link: number): void {
    this.evaluations++
    const capacity = this.capacities[link]!
    const n = this.#crossCounts[link]!
    const loads = this.#crossLoads[link]!
    const crossLinks = this.#crossLinks[link]!
    const levels = this.levels
    let elsewhere = 0
    let fastest = 0
    for (let i = 0; i < n; i++) {
      const x = levels[crossLinks[i]!]!
      elsewhere += loads[i]! * x
      if (x > fastest) fastest = x
    }
    const before = levels[link]!
    let level: number
    const own = this.#ownLoad(link)
    if (own === 0) {
      if (elsewhere <= capacity * CEILING) {
        this.#totals[link] = elsewhere
        if (before !== Infinity) this.#setLevel(link, Infinity)
        return
      }
      level = 0
    } else {
      level = (capacity - elsewhere) / own
      if (!(level > 0)) level = 0
    }
    let pulled = false
    if (fastest > level * CEILING) {
      // Solve own * level + sum of load * min(rate, level) = capacity. The left side is concave in the level, so
      // Newton's steps come from below and end exactly when the set of slower variables no longer grows.
      for (;;) {
        let remaining = capacity
        let usage = own
        for (let i = 0; i < n; i++) {
          const x = levels[crossLinks[i]!]!
          if (x < level) remaining -= loads[i]! * x
          else usage += loads[i]!
        }
        const next = remaining / usage
        if (!(next > level)) break
        level = next
      }
      const ceiling = level * CEILING
      for (let i = n - 1; i >= 0; i--) {
        if (levels[crossLinks[i]!]! <= ceiling) continue
        const v = this.#incidenceVariables[this.#cross[link]![i]!]!
        this.#enqueue(this.bottlenecks[v]!)
        this.#move(v, link)
        pulled = true
      }
    }
    if (!pulled && (level === before || Math.abs(level - before) < level * STILL)) return
    this.#setLevel(link, level)
    this.#totals[link] = NaN
    if (this.#spreadCounts[link] === 0) return
    const change = level - before
    const others = this.#ownOthers[link]!
    const otherLoads = this.#ownOtherLoads[link]!
    const totals = this.#totals
    const capacities = this.capacities
    for (let i = 0, count = this.#ownCounts[link]!; i < count; i++) {
      const other = others[i]!
      if (other < 0) {
        if (other === SEVERAL) this.#tellOthers(this.#incidenceVariables[this.#own[link]![i]!]!, link, change)
      } else if (before === Infinity) this.#enqueue(other)
      else {
        const total = totals[other]! + otherLoads[i]! * change
        totals[other] = total
        if (!(total < capacities[other]! * NEARLY_FULL)) this.#enqueue(other)
      }
    }
  }

  /** The rate of a variable, limited by `link`, has changed: what that means for its other links. */
  #tellOthers(v: number, link: number, change: number): void {
    for (let p = this.incidenceStarts[v]!, end = this.#limitingEnds[v]!; p < end; p++) {
      const other = this.incidenceLinks[p]!
      if (other === link) continue
      if (this.levels[other] !== Infinity || !(change > -Infinity)) this.#enqueue(other)
      else this.#addToTotal(other, this.incidenceWeights[p]! * this.#applied[v]! * change)
    }
  }

  /** Keeps account of a link that limits nobody; only when it may be full does it have to be looked at. */
  #addToTotal(link: number, change: number): void {
    const total = this.#totals[link]! + change
    this.#totals[link] = total
    if (!(total < this.capacities[link]! * NEARLY_FULL)) this.#enqueue(link)
  }

  #setLevel(link: number, level: number): void {
    this.levels[link] = level
    if (this.#changedMarks[link] === 1) return
    this.#changedMarks[link] = 1
    this.changedLinks[this.changedLinkCount++] = link
  }

  #markMoved(v: number): void {
    if (this.#movedMarks[v] === 1) return
    this.#movedMarks[v] = 1
    this.movedVariables[this.movedCount++] = v
  }

  /** Makes a link the bottleneck of an active variable. */
  #move(v: number, link: number): void {
    const before = this.bottlenecks[v]!
    this.#markMoved(v)
    this.bottlenecks[v] = link
    for (let p = this.incidenceStarts[v]!, end = this.#limitingEnds[v]!; p < end; p++) {
      const l = this.incidenceLinks[p]!
      if (l === link) {
        this.#removeCross(p)
        this.#insertOwn(p)
      } else if (l === before) {
        this.#removeOwn(p, this.#applied[v]!)
        this.#insertCross(p, link)
      } else {
        this.#crossLinks[l]![this.#positions[p]!] = link
        if (this.levels[l] === Infinity)
          this.#addToTotal(
            l,
            this.incidenceWeights[p]! * this.#applied[v]! * (this.levels[link]! - this.levels[before]!)
          )
      }
    }
  }

  /** Sum of weight * count of the variables the link limits. */
  #ownLoad(link: number): number {
    const n = this.#ownCounts[link]!
    if (n === 0) return 0
    if (this.#whole[link] === 1) return this.#ownLoads[link]! // sums of integers: exact however they came about
    let sum = 0
    for (let i = 0; i < n; i++) {
      const p = this.#own[link]![i]!
      sum += this.incidenceWeights[p]! * this.#applied[this.#incidenceVariables[p]!]!
    }
    return sum
  }

  #insertOwn(p: number): void {
    const link = this.incidenceLinks[p]!
    const n = this.#ownCounts[link]!++
    if (n === this.#own[link]!.length) {
      this.#own[link] = int32(this.#own[link]!, 2 * n)
      this.#ownOthers[link] = int32(this.#ownOthers[link]!, 2 * n)
      this.#ownOtherLoads[link] = float64(this.#ownOtherLoads[link]!, 2 * n)
    }
    const v = this.#incidenceVariables[p]!
    this.#own[link]![n] = p
    this.#positions[p] = n
    this.#ownLoads[link]! += this.incidenceWeights[p]! * this.#applied[v]!
    this.#noteOther(p)
    if (this.#limitingEnds[v]! - this.incidenceStarts[v]! > 1) this.#spreadCounts[link]!++
  }

  /** Beside a variable in its bottleneck's list: where else its flows count, and with what load. */
  #noteOther(p: number): void {
    const v = this.#incidenceVariables[p]!
    const start = this.incidenceStarts[v]!
    const others = this.#limitingEnds[v]! - start - 1
    const at = this.#positions[p]!
    const own = this.incidenceLinks[p]!
    if (others !== 1) {
      this.#ownOthers[own]![at] = others === 0 ? NONE : SEVERAL
      return
    }
    const q = p === start ? start + 1 : start
    this.#ownOthers[own]![at] = this.incidenceLinks[q]!
    this.#ownOtherLoads[own]![at] = this.incidenceWeights[q]! * this.#applied[v]!
  }

  #removeOwn(p: number, count: number): void {
    const link = this.incidenceLinks[p]!
    const n = --this.#ownCounts[link]!
    const at = this.#positions[p]!
    const last = this.#own[link]![n]!
    this.#own[link]![at] = last
    this.#ownOthers[link]![at] = this.#ownOthers[link]![n]!
    this.#ownOtherLoads[link]![at] = this.#ownOtherLoads[link]![n]!
    this.#positions[last] = at
    this.#ownLoads[link]! -= this.incidenceWeights[p]! * count
    const v = this.#incidenceVariables[p]!
    if (this.#limitingEnds[v]! - this.incidenceStarts[v]! > 1) this.#spreadCounts[link]!--
  }

  #insertCross(p: number, bottleneck: number): void {
    const link = this.incidenceLinks[p]!
    const n = this.#crossCounts[link]!++
    if (n === this.#cross[link]!.length) {
      this.#cross[link] = int32(this.#cross[link]!, 2 * n)
      this.#crossLinks[link] = int32(this.#crossLinks[link]!, 2 * n)
      this.#crossLoads[link] = float64(this.#crossLoads[link]!, 2 * n)
    }
    this.#cross[link]![n] = p
    this.#crossLinks[link]![n] = bottleneck
    this.#crossLoads[link]![n] = this.incidenceWeights[p]! * this.#applied[this.#incidenceVariables[p]!]!
    this.#positions[p] = n
  }

  #removeCross(p: number): void {
    const link = this.incidenceLinks[p]!
    const n = --this.#crossCounts[link]!
    const at = this.#positions[p]!
    const last = this.#cross[link]![n]!
    this.#cross[link]![at] = last
    this.#crossLinks[link]![at] = this.#crossLinks[link]![n]!
    this.#crossLoads[link]![at] = this.#crossLoads[link]![n]!
    this.#positions[last] = at
  }

  /**
   * Decides which links of a new variable can ever limit anyone. The flows of a variable together pass at most
   * min over its links k of capacity / weight; let k attain it. On another link l they then load at most
   * capacity(k) * weight(l) / weight(k), and all variables with the same k together at most that with their largest
   * ratio. A link whose loads so bounded sum to no more than its capacity is left out, typically network cards behind
   * a slower shared link. Once a link takes part it stays.
   */
  #admit(v: number): void {
    const start = this.incidenceStarts[v]!
    const end = this.incidenceStarts[v + 1]!
    let tightest = NONE
    let passing = Infinity
    for (let p = start; p < end; p++) {
      const link = this.incidenceLinks[p]!
      const most = this.capacities[link]! / this.incidenceWeights[p]!
      if (!Number.isNaN(this.#rateMaxs[link]!) || most > passing || most === Infinity) continue
      if (most === passing && this.#limiting[link] === 0) continue // of equals, one that takes part already
      passing = most
      tightest = p
    }
    // Taking part reorders the incidences: decide first, then do it.
    const source = tightest === NONE ? NONE : this.incidenceLinks[tightest]!
    const joining: Array<number> = []
    for (let p = start; p < end; p++) {
      const link = this.incidenceLinks[p]!
      const rateMax = this.#rateMaxs[link]!
      if (!Number.isNaN(rateMax)) {
        if (rateMax < passing) joining.push(link)
      } else if (this.#limiting[link] === 1 || link === source) joining.push(link)
      else if (source !== NONE) {
        const demands = this.#demands[link]!
        const load = passing * this.incidenceWeights[p]!
        if (load > (demands.get(source) ?? 0)) demands.set(source, load)
        let sum = 0
        for (const demand of demands.values()) sum += demand
        if (sum > this.capacities[link]!) joining.push(link)
      }
    }
    for (const link of joining) {
      if (this.#limiting[link] === 1) this.#include(v, link)
      else this.#takePart(link)
    }
  }

  /** From now on the link takes part. */
  #takePart(link: number): void {
    if (this.#limiting[link] === 1) return
    this.#limiting[link] = 1
    for (const incidence of this.#incidences[link]!) this.#include(this.#incidenceVariables[incidence]!, link)
  }

  /** Moves the incidence of a variable on a link that takes part to the front, among the limiting ones. */
  #include(v: number, link: number): void {
    const at = this.#limitingEnds[v]!
    let p = at
    while (this.incidenceLinks[p] !== link) p++
    this.#limitingEnds[v] = at + 1
    this.incidenceLinks[p] = this.incidenceLinks[at]!
    this.incidenceLinks[at] = link
    const weight = this.incidenceWeights[p]!
    this.incidenceWeights[p] = this.incidenceWeights[at]!
    this.incidenceWeights[at] = weight
    if (this.#applied[v] === 0) return
    if (this.bottlenecks[v] === NONE) {
      this.bottlenecks[v] = link
      this.#adopted.push(v)
      this.#insertOwn(at)
    } else {
      const bottleneck = this.bottlenecks[v]!
      let own = this.incidenceStarts[v]!
      if (at - own === 1) this.#spreadCounts[bottleneck]!++
      while (this.incidenceLinks[own] !== bottleneck) own++
      this.#noteOther(own)
      this.#insertCross(at, bottleneck)
    }
    this.#enqueue(link)
  }

  #enqueue(link: number): void {
    if (this.#queue.waiting[link] === 1 || this.#limiting[link] === 0) return
    this.#queue.push(link, this.levels)
  }

  #addLink(bytesPerSecond: number, rateMax: number): number {
    const link = this.linkCount++
    if (link === this.capacities.length) {
      const length = 2 * link
      this.capacities = float64(this.capacities, length)
      this.levels = float64(this.levels, length)
      this.changedLinks = int32(this.changedLinks, length)
      this.#rateMaxs = float64(this.#rateMaxs, length)
      this.#limiting = uint8(this.#limiting, length)
      this.#whole = uint8(this.#whole, length)
      this.#ownLoads = float64(this.#ownLoads, length)
      this.#spreadCounts = int32(this.#spreadCounts, length)
      this.#totals = float64(this.#totals, length)
      this.#ownCounts = int32(this.#ownCounts, length)
      this.#crossCounts = int32(this.#crossCounts, length)
      this.#changedMarks = uint8(this.#changedMarks, length)
      this.#queue.grow(length)
    }
    this.capacities[link] = bytesPerSecond
    this.levels[link] = Infinity
    this.#rateMaxs[link] = rateMax
    this.#whole[link] = 1
    const initial = Number.isNaN(rateMax) ? 4 : 1
    this.#own.push(new Int32Array(initial))
    this.#ownOthers.push(new Int32Array(initial))
    this.#ownOtherLoads.push(new Float64Array(initial))
    this.#cross.push(new Int32Array(initial))
    this.#crossLinks.push(new Int32Array(initial))
    this.#crossLoads.push(new Float64Array(initial))
    this.#incidences.push([])
    this.#demands.push(new Map())
    return link
  }

  #addIncidence(at: number, variable: number, link: number, weight: number): void {
    if (at === this.incidenceLinks.length) {
      const length = 2 * at
      this.incidenceLinks = int32(this.incidenceLinks, length)
      this.incidenceWeights = float64(this.incidenceWeights, length)
      this.#incidenceVariables = int32(this.#incidenceVariables, length)
      this.#positions = int32(this.#positions, length)
    }
    this.incidenceLinks[at] = link
    this.incidenceWeights[at] = weight
    this.#incidenceVariables[at] = variable
    this.#incidences[link]!.push(at)
    if (!Number.isInteger(weight)) this.#whole[link] = 0
  }

  #growVariables(): void {
    const length = 2 * this.counts.length
    this.counts = int32(this.counts, length)
    this.bottlenecks = int32(this.bottlenecks, length)
    this.incidenceStarts = int32(this.incidenceStarts, length + 1)
    this.movedVariables = int32(this.movedVariables, length)
    this.#applied = int32(this.#applied, length)
    this.#limitingEnds = int32(this.#limitingEnds, length)
    this.#touchedMarks = uint8(this.#touchedMarks, length)
    this.#touched = int32(this.#touched, length)
    this.#movedMarks = uint8(this.#movedMarks, length)
  }
}
