// Max-min fair rates by progressive filling, re-solved only where a change can be felt.
// Knows variables (how many equal flows, which links, with which weights) and link capacities;
// nothing of time, bytes or activities.
//
// A variable v stands for `count` flows that share one rate x each; on link l it uses weight * count * x. The max-min
// fair allocation raises all rates together and freezes the flows of a link when it saturates: that link is then the
// *bottleneck* of the flows it froze, at the *level* of their common rate.
//
// What a change can reach. Filling from zero runs exactly as before until the level where the change is first felt:
// - a flow of rate x leaves: its links saturated at x or above, so rates below x stay;
// - a flow joins, or a capacity shrinks: no sooner than the level at which one of its links would now saturate by
//   itself, given the rates that stay;
// - a capacity grows: that link's old level.
// The least of these is the threshold. Rates below it stay; those at or above it are solved again, and of these only
// the ones connected to the change through links they share.

const NONE = -1
/** Rates this close to the threshold count as at it, so that ties separated by rounding are solved together. */
const TIE = 1 - 1e-12

/** Incremental max-min solver. Links and variables are dense integers in order of creation. */
export class MaxMin {
  /** bytes/s; Infinity never saturates; 0 stops its flows. Read-only to others: use `setCapacity`. */
  capacities = new Float64Array(16)
  linkCount = 0
  /** Common rate of the flows the link limits after the last `solve`; Infinity when it limits none. */
  levels = new Float64Array(16)

  /** Rate of one flow of the variable after the last `solve`, bytes/s. */
  rates = new Float64Array(16)
  /** The link that limits the variable after the last `solve`; -1 when nothing does (its rate is Infinity). */
  bottlenecks = new Int32Array(16)
  counts = new Int32Array(16)
  variableCount = 0
  /** Variable v uses incidenceLinks[p] with incidenceWeights[p] for p in incidenceStarts[v] .. incidenceStarts[v + 1]. */
  incidenceStarts = new Int32Array(17)
  incidenceLinks = new Int32Array(32)
  incidenceWeights = new Float64Array(32)

  /** Variables with flows on a link: `members[link][0 .. memberCounts[link])`. */
  members: Array<Int32Array<ArrayBuffer>> = []
  memberCounts = new Int32Array(16)

  /** Result of the last `solve`: the variables solved again, in groups of one bottleneck each, levels ascending. */
  solved = new Int32Array(16)
  solvedCount = 0
  /** Group g is solved[groupEnds[g-1] .. groupEnds[g]) and limited by groupLinks[g] (-1: by nothing). */
  groupLinks = new Int32Array(17)
  groupEnds = new Int32Array(17)
  groupCount = 0
  /** Links looked at by the last `solve`. Those that limit some variable have a group; the others limit none. */
  affected = new Int32Array(16)
  affectedCount = 0
  /** Called inside `solve` when the first flow joins a link, and when the last one leaves it. */
  onLinkBusy: ((link: number) => void) | undefined
  onLinkIdle: ((link: number) => void) | undefined

  // Per link.
  #memberLoads: Array<Float64Array<ArrayBuffer>> = [] // weight * count, beside members
  #rateMaxs = new Float64Array(16) // NaN: a real link; otherwise the private link of a capped variable
  #remaining = new Float64Array(16)
  #usage = new Float64Array(16)
  #unknown = new Int32Array(16)
  #linkMarks = new Int32Array(16)
  #keys = new Float64Array(16) // of the links in the heap below
  #capacitiesBefore = new Float64Array(16)
  #capacityChanged: Array<number> = []

  // Per variable.
  #countsBefore = new Int32Array(16)
  #variableMarks = new Int32Array(16)
  #touchedMarks = new Uint8Array(16)
  #touched = new Int32Array(16)
  #touchedCount = 0

  // Per incidence (variable, link).
  #incidencePositions = new Int32Array(32) // place in members[link]
  #memberIncidences: Array<Int32Array<ArrayBuffer>> = []

  #heap = new Int32Array(16)
  #heapSize = 0
  #epoch = 0
  #threshold = Infinity

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
    if (v === this.rates.length) {
      this.rates = doubled(this.rates)
      this.bottlenecks = doubled(this.bottlenecks)
      this.counts = doubled(this.counts)
      this.solved = doubled(this.solved)
      this.#countsBefore = doubled(this.#countsBefore)
      this.#variableMarks = doubled(this.#variableMarks)
      this.#touchedMarks = doubled(this.#touchedMarks)
      this.#touched = doubled(this.#touched)
      const starts = new Int32Array(this.rates.length + 1)
      starts.set(this.incidenceStarts)
      this.incidenceStarts = starts
    }
    this.bottlenecks[v] = NONE
    let end = this.incidenceStarts[v]!
    for (let i = 0; i < links.length; i++) end = this.#addIncidence(end, links[i]!, weights?.[i] ?? 1)
    // A bound on the rate of each flow is a link of its own whose capacity follows the number of flows.
    if (rateMax !== Infinity) end = this.#addIncidence(end, this.#addLink(0, rateMax), 1)
    this.incidenceStarts[v + 1] = end
    return v
  }

  /** Changes the number of flows of a variable by `by`; takes effect at the next `solve`. */
  addFlows(variable: number, by: number): void {
    this.counts[variable]! += by
    if (this.#touchedMarks[variable] === 0) {
      this.#touchedMarks[variable] = 1
      this.#touched[this.#touchedCount++] = variable
    }
  }

  /** Changes a link's capacity; takes effect at the next `solve`. */
  setCapacity(link: number, bytesPerSecond: number): void {
    if (!this.#capacityChanged.includes(link)) {
      this.#capacityChanged.push(link)
      this.#capacitiesBefore[link] = this.capacities[link]!
    }
    this.capacities[link] = bytesPerSecond
  }

  /** Did the last `solve` look at this link? If not, its level and the variables it limits are as before. */
  isAffected(link: number): boolean {
    return this.affectedCount > 0 && this.#linkMarks[link] === this.#epoch
  }

  /** Brings `rates` and `bottlenecks` up to date with the changes since the last call, and says what was solved. */
  solve(): void {
    this.solvedCount = 0
    this.groupCount = 0
    this.affectedCount = 0
    if (this.#touchedCount === 0 && this.#capacityChanged.length === 0) return
    this.#epoch++
    this.#threshold = Infinity
    this.#applyChanges()
    this.#spread()
    this.#fill()
    this.#freeUnlimited()
    for (let i = 0; i < this.#touchedCount; i++) {
      const v = this.#touched[i]!
      this.#countsBefore[v] = this.counts[v]!
      this.#touchedMarks[v] = 0
    }
    this.#touchedCount = 0
    this.#capacityChanged.length = 0
  }

  /** Enters the changes into the members of links, marks the links they touch, and finds the threshold. */
  #applyChanges(): void {
    const touched = this.#touched
    let threshold = Infinity
    let anyJoined = false
    for (let i = 0; i < this.#touchedCount; i++) {
      const v = touched[i]!
      const before = this.#countsBefore[v]!
      const count = this.counts[v]!
      if (count === before) continue
      if (before === 0)
        this.rates[v] = Infinity // unknown: at or above any threshold
      else if (count < before && this.rates[v]! < threshold) threshold = this.rates[v]!
      if (count > before) anyJoined = true
      const end = this.incidenceStarts[v + 1]!
      for (let p = this.incidenceStarts[v]!; p < end; p++) {
        const link = this.incidenceLinks[p]!
        if (count === 0) this.#removeMember(p, link)
        else if (before === 0) this.#addMember(p, link, v, count)
        else this.#memberLoads[link]![this.#incidencePositions[p]!] = this.incidenceWeights[p]! * count
        const rateMax = this.#rateMaxs[link]!
        if (!Number.isNaN(rateMax)) this.capacities[link] = rateMax * count
        if (this.capacities[link] !== Infinity) this.#affect(link)
      }
      if (before === 0) this.#variableMarks[v] = this.#epoch // unknown even if no link can limit it
    }
    if (anyJoined) {
      for (let i = 0; i < this.#touchedCount; i++) {
        const v = touched[i]!
        if (this.counts[v]! <= this.#countsBefore[v]!) continue
        const end = this.incidenceStarts[v + 1]!
        for (let p = this.incidenceStarts[v]!; p < end; p++) {
          const level = this.#soloLevel(this.incidenceLinks[p]!)
          if (level < threshold) threshold = level
        }
      }
    }
    for (const link of this.#capacityChanged) {
      const before = this.#capacitiesBefore[link]!
      const now = this.capacities[link]!
      if (now === before || this.memberCounts[link] === 0) continue
      const level = now > before ? this.levels[link]! : this.#soloLevel(link)
      if (level < threshold) threshold = level
      this.#affect(link)
    }
    this.#threshold = threshold * TIE
  }

  /**
   * A lower bound of the level at which the link saturates if no rate below that level changes: the solution of
   * sum of load * min(rate, level) = capacity, approached from below.
   */
  #soloLevel(link: number): number {
    const capacity = this.capacities[link]!
    const n = this.memberCounts[link]!
    if (capacity === Infinity || n === 0) return Infinity
    const members = this.members[link]!
    const loads = this.#memberLoads[link]!
    const rates = this.rates
    let level = 0
    for (let pass = 0; pass < 4; pass++) {
      let remaining = capacity
      let usage = 0
      for (let i = 0; i < n; i++) {
        const x = rates[members[i]!]!
        if (x < level) remaining -= loads[i]! * x
        else usage += loads[i]!
      }
      if (usage === 0) return Infinity // all of its flows are slower than it allows
      const next = remaining / usage
      if (!(next > level)) break
      level = next
    }
    return level
  }

  /** Finds the unknown variables: those at or above the threshold that are connected to the affected links. */
  #spread(): void {
    const { rates, capacities } = this
    const starts = this.incidenceStarts
    const links = this.incidenceLinks
    const linkMarks = this.#linkMarks
    const variableMarks = this.#variableMarks
    const threshold = this.#threshold
    const epoch = this.#epoch
    this.#heapSize = 0
    const affected = this.affected
    let count = this.affectedCount
    for (let a = 0; a < count; a++) {
      const link = affected[a]!
      this.levels[link] = Infinity
      const n = this.memberCounts[link]!
      if (n === 0) continue
      const capacity = capacities[link]!
      const members = this.members[link]!
      const loads = this.#memberLoads[link]!
      let remaining = capacity
      let usage = 0
      let unknown = 0
      for (let i = 0; i < n; i++) {
        const v = members[i]!
        const x = rates[v]!
        if (x < threshold) {
          remaining -= loads[i]! * x
          continue
        }
        usage += loads[i]!
        unknown++
        if (variableMarks[v] === epoch) continue
        variableMarks[v] = epoch
        const end = starts[v + 1]!
        for (let p = starts[v]!; p < end; p++) {
          const other = links[p]!
          // A link that cannot saturate carries no influence from one flow to another.
          if (linkMarks[other] === epoch || capacities[other] === Infinity) continue
          linkMarks[other] = epoch
          affected[count++] = other
        }
      }
      this.#remaining[link] = remaining
      this.#usage[link] = usage
      this.#unknown[link] = unknown
      if (unknown > 0 && capacity !== Infinity) {
        this.#keys[link] = remaining > 0 ? remaining / usage : 0
        this.#heap[this.#heapSize++] = link
      }
    }
    this.affectedCount = count
  }

  /** Progressive filling of the unknown variables. A link's fair level only grows, so its place in the heap is lazy. */
  #fill(): void {
    const { rates, bottlenecks, solved, groupLinks, groupEnds } = this
    const starts = this.incidenceStarts
    const links = this.incidenceLinks
    const weights = this.incidenceWeights
    const variableMarks = this.#variableMarks
    const remaining = this.#remaining
    const usage = this.#usage
    const unknown = this.#unknown
    const counts = this.counts
    const epoch = this.#epoch
    let solvedCount = this.solvedCount
    let level = 0
    for (let i = (this.#heapSize - 2) >> 1; i >= 0; i--) this.#siftDown(i)
    while (this.#heapSize > 0) {
      const link = this.#heap[0]!
      if (unknown[link] === 0) {
        this.#popLink()
        continue
      }
      const r = remaining[link]!
      const key = r > 0 ? r / usage[link]! : 0
      if (key > this.#keys[link]!) {
        this.#keys[link] = key
        this.#siftDown(0)
        continue
      }
      this.#popLink()
      if (key > level) level = key
      this.levels[link] = level
      const members = this.members[link]!
      const n = this.memberCounts[link]!
      for (let i = 0; i < n; i++) {
        const v = members[i]!
        if (variableMarks[v] !== epoch) continue
        variableMarks[v] = 0
        rates[v] = level
        bottlenecks[v] = link
        solved[solvedCount++] = v
        const flows = counts[v]!
        const end = starts[v + 1]!
        for (let p = starts[v]!; p < end; p++) {
          const other = links[p]!
          const load = weights[p]! * flows
          remaining[other]! -= load * level
          usage[other]! -= load
          unknown[other]!--
        }
      }
      groupLinks[this.groupCount] = link
      groupEnds[this.groupCount++] = solvedCount
    }
    this.solvedCount = solvedCount
  }

  /** Unknown variables that no link froze are limited by nothing: only links of infinite capacity carry them. */
  #freeUnlimited(): void {
    const before = this.solvedCount
    for (let i = 0; i < this.#touchedCount; i++) this.#freeIfUnknown(this.#touched[i]!)
    for (const link of this.#capacityChanged) {
      if (this.capacities[link] !== Infinity) continue
      const members = this.members[link]!
      for (let i = 0; i < this.memberCounts[link]!; i++) this.#freeIfUnknown(members[i]!)
    }
    if (this.solvedCount === before) return
    this.groupLinks[this.groupCount] = NONE
    this.groupEnds[this.groupCount++] = this.solvedCount
  }

  #freeIfUnknown(variable: number): void {
    if (this.#variableMarks[variable] !== this.#epoch) return
    this.#variableMarks[variable] = 0
    if (this.counts[variable] === 0) return
    this.rates[variable] = Infinity
    this.bottlenecks[variable] = NONE
    this.solved[this.solvedCount++] = variable
  }

  #popLink(): void {
    const last = --this.#heapSize
    if (last > 0) {
      this.#heap[0] = this.#heap[last]!
      this.#siftDown(0)
    }
  }

  /** Binary heap by (key, link): ties go to the lower link, so that the order of filling is determined. */
  #siftDown(start: number): void {
    const heap = this.#heap
    const keys = this.#keys
    const size = this.#heapSize
    const link = heap[start]!
    const key = keys[link]!
    let i = start
    for (;;) {
      let child = 2 * i + 1
      if (child >= size) break
      let best = heap[child]!
      let bestKey = keys[best]!
      if (child + 1 < size) {
        const right = heap[child + 1]!
        const rightKey = keys[right]!
        if (rightKey < bestKey || (rightKey === bestKey && right < best)) {
          child++
          best = right
          bestKey = rightKey
        }
      }
      if (key < bestKey || (key === bestKey && link < best)) break
      heap[i] = best
      i = child
    }
    heap[i] = link
  }

  #affect(link: number): void {
    if (this.#linkMarks[link] === this.#epoch) return
    this.#linkMarks[link] = this.#epoch
    this.affected[this.affectedCount++] = link
  }

  #addMember(incidence: number, link: number, variable: number, count: number): void {
    const n = this.memberCounts[link]!++
    if (n === this.members[link]!.length) {
      this.members[link] = doubled(this.members[link]!)
      this.#memberLoads[link] = doubled(this.#memberLoads[link]!)
      this.#memberIncidences[link] = doubled(this.#memberIncidences[link]!)
    }
    this.members[link]![n] = variable
    this.#memberLoads[link]![n] = this.incidenceWeights[incidence]! * count
    this.#memberIncidences[link]![n] = incidence
    this.#incidencePositions[incidence] = n
    if (n === 0) this.onLinkBusy?.(link)
  }

  #removeMember(incidence: number, link: number): void {
    const at = this.#incidencePositions[incidence]!
    const last = --this.memberCounts[link]!
    if (at !== last) {
      const moved = this.#memberIncidences[link]![last]!
      this.members[link]![at] = this.members[link]![last]!
      this.#memberLoads[link]![at] = this.#memberLoads[link]![last]!
      this.#memberIncidences[link]![at] = moved
      this.#incidencePositions[moved] = at
    }
    if (last === 0) this.onLinkIdle?.(link)
  }

  #addLink(bytesPerSecond: number, rateMax: number): number {
    const link = this.linkCount++
    if (link === this.capacities.length) {
      this.capacities = doubled(this.capacities)
      this.memberCounts = doubled(this.memberCounts)
      this.groupLinks = doubled(this.groupLinks)
      this.groupEnds = doubled(this.groupEnds)
      this.affected = doubled(this.affected)
      this.levels = doubled(this.levels)
      this.#rateMaxs = doubled(this.#rateMaxs)
      this.#remaining = doubled(this.#remaining)
      this.#usage = doubled(this.#usage)
      this.#unknown = doubled(this.#unknown)
      this.#linkMarks = doubled(this.#linkMarks)
      this.#keys = doubled(this.#keys)
      this.#capacitiesBefore = doubled(this.#capacitiesBefore)
      this.#heap = doubled(this.#heap)
    }
    this.capacities[link] = bytesPerSecond
    this.#rateMaxs[link] = rateMax
    this.levels[link] = Infinity
    const initial = Number.isNaN(rateMax) ? 4 : 1
    this.members.push(new Int32Array(initial))
    this.#memberLoads.push(new Float64Array(initial))
    this.#memberIncidences.push(new Int32Array(initial))
    return link
  }

  #addIncidence(at: number, link: number, weight: number): number {
    if (at === this.incidenceLinks.length) {
      this.incidenceLinks = doubled(this.incidenceLinks)
      this.incidenceWeights = doubled(this.incidenceWeights)
      this.#incidencePositions = doubled(this.#incidencePositions)
    }
    this.incidenceLinks[at] = link
    this.incidenceWeights[at] = weight
    return at + 1
  }
}

/** The same elements in an array twice as long. */
function doubled(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer>
function doubled(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer>
function doubled(array: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>
function doubled(
  array: Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>
): Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer> {
  const longer = new (array.constructor as Float64ArrayConstructor)(array.length * 2)
  longer.set(array as Float64Array<ArrayBuffer>)
  return longer
}
