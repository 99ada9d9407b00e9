// Max-min fair levels from nothing, by progressive filling: the definition itself, slow, independent of any state before. What the
// incremental solver falls back on, and what it is held to.

/** Variables as `MaxMin` has them: `counts[v]` flows each, on links `starts[v] .. ends[v]` of the incidences. */
interface Problem {
  readonly linkCount: number
  readonly variableCount: number
  readonly capacities: Float64Array
  readonly counts: Int32Array
  readonly starts: Int32Array
  readonly ends: Int32Array
  readonly links: Int32Array
  readonly weights: Float64Array
  /** Variables on a link; some may not load it. */
  readonly variablesOn: (link: number) => Iterable<number>
}

interface Filled {
  /** Rate of the flows that each link limits; Infinity where it limits none. */
  readonly levels: Float64Array
  /** The link that limits each variable; -1 where none does. */
  readonly bottlenecks: Int32Array
  /** Capacity that is left of each link. */
  readonly remaining: Float64Array
}

export const progressiveFilling = (problem: Problem): Filled => {
  const { linkCount, variableCount, counts, starts, ends, links, weights, variablesOn } = problem
  const remaining = problem.capacities.slice(0, linkCount)
  const usage = new Float64Array(linkCount)
  const unknown = new Int32Array(linkCount)
  const bottlenecks = new Int32Array(variableCount).fill(-1)
  const levels = new Float64Array(linkCount).fill(Infinity)
  for (let v = 0; v < variableCount; v++) {
    if (counts[v] === 0) continue
    for (let p = starts[v]!; p < ends[v]!; p++) {
      usage[links[p]!]! += weights[p]! * counts[v]!
      unknown[links[p]!]!++
    }
  }
  for (let level = 0; ;) {
    let link = -1
    let best = Infinity
    for (let l = 0; l < linkCount; l++) {
      if (unknown[l] === 0) continue
      const fair = Math.max(level, remaining[l]! / usage[l]!)
      if (fair < best) {
        best = fair
        link = l
      }
    }
    if (link < 0) return { levels, bottlenecks, remaining }
    level = best
    levels[link] = level
    for (const v of variablesOn(link)) {
      if (bottlenecks[v] !== -1 || counts[v] === 0) continue
      bottlenecks[v] = link
      for (let p = starts[v]!; p < ends[v]!; p++) {
        const load = weights[p]! * counts[v]!
        remaining[links[p]!]! -= load * level
        usage[links[p]!]! -= load
        unknown[links[p]!]!--
      }
    }
  }
}
