// The default DreamDDP planner: any layer in any iteration, not only consecutive ones. Good schedules from several
// constructions and a local search; a proof of optimality by branch and bound where the instance is small enough.

import { contiguousSets } from "./contiguous.ts"
import { evaluateSets, exposedSecondsOf, roundingSeconds, type SyncProblem } from "./cost.ts"
import { lowerBoundSeconds, suffixLowerBounds } from "./lower-bound.ts"
import { makeSyncPlan, type SyncPlan } from "./sync-plan.ts"

interface AssignmentOptions {
  /** Work allowed to the local search, in layers visited while evaluating sets. Default 20 million (about 0.1 s). */
  readonly localSearchVisits?: number
  /** Nodes allowed to the branch and bound; 0 turns it off. Default 200,000 (about 0.1 s). */
  readonly branchNodes?: number
}

/** Beyond this many communicating layers a complete search is hopeless, and is not begun. */
const branchLayersMax = 48

type Sets = Array<Array<number>>

/**
 * Plan over all assignments of layers to iterations. Never worse than the exact contiguous optimum, hence never worse
 * than the equal-number partition or the published search: the optimum over consecutive blocks is one of the
 * constructions it starts from, and nothing but an improvement is ever accepted.
 *
 * Exact for every instance that the branch and bound finishes or whose cost meets the lower bound, and `exact` says so.
 * The problem is strongly NP-hard (lower-bound.ts), so larger instances may end with a gap to `lowerBoundSeconds`.
 * Deterministic: its limits are counts of work, not of time.
 */
export const planAssignment = (problem: SyncProblem, options: AssignmentOptions = {}): SyncPlan => {
  const bound = lowerBoundSeconds(problem)
  const rounding = roundingSeconds(problem)
  const closed = (seconds: number) => seconds - bound <= rounding

  const contiguous = contiguousSets(problem)
  let best: ReadonlyArray<ReadonlyArray<number>> = contiguous
  let bestSeconds = evaluateSets(problem, contiguous).totalSeconds
  // Consecutive blocks that are optimal anyway are the simplest plan to read and the one with most time to spare.
  if (closed(bestSeconds)) return makeSyncPlan(problem, best, "assignment")

  const positive: Array<number> = []
  for (const [layer, seconds] of problem.communicationSeconds.entries()) if (seconds > 0) positive.push(layer)
  const starts: Array<Sets> = [
    blocksOf(problem, contiguous),
    roundRobin(problem, positive),
    listSchedule(problem, positive, "loosest"),
    listSchedule(problem, positive, "tightest"),
    bestForwardSchedule(problem, positive, bound, bestSeconds)
  ]
  const costs = starts.map((sets) => evaluateSets(problem, sets).totalSeconds)
  const order = starts.map((_, k) => k).toSorted((a, b) => costs[a]! - costs[b]! || a - b)
  let visits = options.localSearchVisits ?? 20_000_000
  for (const k of order) {
    if (visits <= 0 || closed(bestSeconds)) break
    const sets = starts[k]!
    visits = improve(problem, sets, visits)
    const seconds = evaluateSets(problem, sets).totalSeconds
    if (seconds < bestSeconds - rounding) {
      bestSeconds = seconds
      best = sets
    }
  }

  let optimal = closed(bestSeconds)
  const nodes = options.branchNodes ?? 200_000
  if (!optimal && nodes > 0 && positive.length <= branchLayersMax) {
    const found = branchAndBound(problem, positive, bestSeconds, nodes)
    optimal = found.complete
    if (found.sets !== undefined) best = found.sets
  }
  return makeSyncPlan(
    problem,
    best === contiguous ? best : withIdleLayers(problem, best),
    "assignment",
    optimal
  )
}

/** Sets as ascending arrays of the communicating layers only, `period` of them. */
const blocksOf = (problem: SyncProblem, sets: ReadonlyArray<ReadonlyArray<number>>): Sets =>
  Array.from({ length: problem.period }, (_, h) =>
    (sets[h] ?? []).filter((layer) => problem.communicationSeconds[layer]! > 0).toSorted((a, b) => a - b)
  )

/** Backward order dealt out like cards, so that every iteration starts communicating early in its backward pass. */
const roundRobin = (problem: SyncProblem, positive: ReadonlyArray<number>): Sets => {
  const sets: Sets = Array.from({ length: problem.period }, () => [])
  for (const [k, layer] of positive.entries()) sets[(positive.length - 1 - k) % problem.period]!.push(layer)
  return sets
}

/**
 * Layers in backward order (as they are released), each to the iteration whose stall it raises least. Among equals
 * "loosest" takes the one whose channel is free first, "tightest" the last one that is free in time.
 */
const listSchedule = (
  problem: SyncProblem,
  positive: ReadonlyArray<number>,
  fit: "loosest" | "tightest"
): Sets => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const sets: Sets = Array.from({ length: problem.period }, () => [])
  const free = new Float64Array(problem.period).fill(Number.NEGATIVE_INFINITY)
  const stall = new Float64Array(problem.period)
  for (const layer of positive.toReversed()) {
    let chosen = 0
    let leastRise = Number.POSITIVE_INFINITY
    for (let h = 0; h < problem.period; h++) {
      const ends = Math.max(free[h]!, -backwardLeftSeconds[layer]!) + communicationSeconds[layer]!
      const rise = Math.max(0, ends - forwardLeftSeconds[layer]!) - stall[h]!
      const better = fit === "loosest" ? free[h]! < free[chosen]! : free[h]! > free[chosen]!
      if (rise < leastRise || (rise === leastRise && better)) {
        leastRise = rise
        chosen = h
      }
    }
    free[chosen] = Math.max(free[chosen]!, -backwardLeftSeconds[layer]!) + communicationSeconds[layer]!
    stall[chosen] = Math.max(0, free[chosen]! - forwardLeftSeconds[layer]!)
    sets[chosen]!.unshift(layer)
  }
  return sets
}

/**
 * Layers in forward order, so that an iteration's due point is known from its first layer on. An iteration is opened as
 * late as possible, which makes its due point late: only when no open one can take the layer without the stalls of all
 * exceeding `allowedSeconds`. This is the order in which the bound of `lowerBoundSeconds` places its minima.
 */
const forwardSchedule = (
  problem: SyncProblem,
  positive: ReadonlyArray<number>,
  allowedSeconds: number
): Sets => {
  const { period, communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const sets: Sets = []
  const channel = new Float64Array(period)
  const worst = new Float64Array(period).fill(Number.NEGATIVE_INFINITY)
  const due = new Float64Array(period)
  let stalls = 0
  for (const layer of positive) {
    const seconds = communicationSeconds[layer]!
    let chosen = -1
    let leastRise = Number.POSITIVE_INFINITY
    for (let h = 0; h < sets.length; h++) {
      const late = Math.max(worst[h]!, channel[h]! + seconds - backwardLeftSeconds[layer]!)
      const rise = Math.max(0, late - due[h]!) - Math.max(0, worst[h]! - due[h]!)
      if (
        rise < leastRise ||
        (rise === leastRise && channel[h]! - due[h]! < channel[chosen]! - due[chosen]!)
      ) {
        leastRise = rise
        chosen = h
      }
    }
    if (sets.length < period && (chosen < 0 || stalls + leastRise > allowedSeconds)) {
      chosen = sets.length
      sets.push([])
      due[chosen] = forwardLeftSeconds[layer]!
      leastRise = Math.max(0, seconds - backwardLeftSeconds[layer]! - due[chosen]!)
    }
    sets[chosen]!.push(layer)
    stalls += leastRise
    channel[chosen] = channel[chosen]! + seconds
    worst[chosen] = Math.max(worst[chosen]!, channel[chosen]! - backwardLeftSeconds[layer]!)
  }
  while (sets.length < period) sets.push([])
  return sets
}

/** The best `forwardSchedule` over allowances between what is impossible and what is known to be possible. */
const bestForwardSchedule = (
  problem: SyncProblem,
  positive: ReadonlyArray<number>,
  lowerSeconds: number,
  upperSeconds: number
): Sets => {
  const parts = 24
  const candidates = Array.from({ length: parts + 1 }, (_, k) =>
    forwardSchedule(problem, positive, lowerSeconds + ((upperSeconds - lowerSeconds) * k) / parts)
  )
  const costs = candidates.map((sets) => evaluateSets(problem, sets).totalSeconds)
  return candidates[costs.indexOf(Math.min(...costs))]!
}

/** W of an ascending set without `drop` and with `add` (-1 for none), without building it. */
const exposedWith = (
  problem: SyncProblem,
  ascending: ReadonlyArray<number>,
  drop: number,
  add: number
): number => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  let channel = 0
  let worst = Number.NEGATIVE_INFINITY
  let due = 0
  let pending = add
  for (let k = 0; k <= ascending.length; k++) {
    let layer = k < ascending.length ? ascending[k]! : -1
    if (pending >= 0 && (layer < 0 || pending < layer)) {
      layer = pending
      pending = -1
      k--
    } else if (layer < 0) break
    else if (layer === drop) continue
    if (channel === 0) due = forwardLeftSeconds[layer]!
    channel += communicationSeconds[layer]!
    const late = channel - backwardLeftSeconds[layer]!
    if (late > worst) worst = late
  }
  return worst > due ? worst - due : 0
}

const insert = (ascending: Array<number>, layer: number): void => {
  const at = ascending.findIndex((other) => other > layer)
  ascending.splice(at < 0 ? ascending.length : at, 0, layer)
}
const remove = (ascending: Array<number>, layer: number): void => {
  ascending.splice(ascending.indexOf(layer), 1)
}

/**
 * Local search in place: moves of one layer out of a stalling iteration, then exchanges of two layers, first improvement,
 * until none is left or the allowance is spent. Returns what is left of the allowance.
 */
const improve = (problem: SyncProblem, sets: Sets, allowance: number): number => {
  const work = { left: allowance }
  const stall = sets.map((set) => exposedSecondsOf(problem, set))
  const least = roundingSeconds(problem)
  const apply = (from: number, to: number, layer: number, back: number): void => {
    remove(sets[from]!, layer)
    insert(sets[to]!, layer)
    if (back >= 0) {
      remove(sets[to]!, back)
      insert(sets[from]!, back)
    }
    stall[from] = exposedSecondsOf(problem, sets[from]!)
    stall[to] = exposedSecondsOf(problem, sets[to]!)
  }
  /** One improving move or exchange out of iteration `from`, applied; false if there is none. */
  const step = (from: number): boolean => {
    const source = sets[from]!
    for (const layer of source) {
      const gain = stall[from]! - exposedWith(problem, source, layer, -1)
      work.left -= source.length
      if (gain <= least) continue
      for (let to = 0; to < sets.length; to++) {
        if (to === from) continue
        work.left -= sets[to]!.length + 1
        if (exposedWith(problem, sets[to]!, -1, layer) - stall[to]! < gain - least) {
          apply(from, to, layer, -1)
          return true
        }
      }
      if (work.left <= 0) return false
    }
    for (const layer of source) {
      for (let to = 0; to < sets.length; to++) {
        if (to === from) continue
        const target = sets[to]!
        for (const back of target) {
          const after = exposedWith(problem, source, layer, back)
          work.left -= source.length
          if (after >= stall[from]! + stall[to]! - least) continue
          work.left -= target.length
          if (after + exposedWith(problem, target, back, layer) < stall[from]! + stall[to]! - least) {
            apply(from, to, layer, back)
            return true
          }
        }
        if (work.left <= 0) return false
      }
    }
    return false
  }
  for (let moved = true; moved && work.left > 0;) {
    moved = false
    for (let from = 0; from < sets.length && work.left > 0; from++)
      while (stall[from]! > 0 && work.left > 0 && step(from)) moved = true
  }
  return work.left
}

/**
 * Complete search over all assignments below `upperSeconds`: layers in forward order, each into every iteration that is
 * not a mere renaming of one already tried. `sets` is the best assignment cheaper than `upperSeconds`, if any; `complete`
 * is false if the nodes ran out, in which case nothing is proven.
 *
 * A node is cut when one of two bounds reaches the best cost. Layers 0..l-1 are placed, giving stalls W_h.
 * (1) By superadditivity the rest adds at least what it costs on its own: sum W_h + suffixLowerBounds[l].
 * (2) Every completion satisfies, for each prefix 0..k that contains all placed layers, sum_h W_h >= C(<=k) - (the H largest
 * R among them) - sum_h D_h, where D_h is the due time of iteration h, which is fixed once it has a layer as layers
 * come in ascending order, and at most the last layer's before (the proof is steps 1 and 2 of suffixLowerBounds).
 */
const branchAndBound = (
  problem: SyncProblem,
  positive: ReadonlyArray<number>,
  upperSeconds: number,
  nodesMax: number
): { readonly sets: Sets | undefined; readonly complete: boolean } => {
  const { period, communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const n = positive.length
  const rest = suffixLowerBounds(problem)
  // Bound 2 without its D: capacity[j] = max over k >= j of C(<=k) - the H largest R of 0..k.
  const capacity = new Float64Array(n + 1).fill(Number.NEGATIVE_INFINITY)
  {
    const prefix = new Float64Array(n)
    let c = 0
    let r = 0
    for (const [k, layer] of positive.entries()) {
      c += communicationSeconds[layer]!
      r += backwardLeftSeconds[layer]!
      if (k >= period) r -= backwardLeftSeconds[positive[k - period]!]!
      prefix[k] = c - r
    }
    for (let k = n - 1; k >= 0; k--) capacity[k] = Math.max(capacity[k + 1]!, prefix[k]!)
  }
  const lastDue = n === 0 ? 0 : forwardLeftSeconds[positive[n - 1]!]!

  const home = new Int32Array(n)
  const channel = new Float64Array(period)
  const worst = new Float64Array(period).fill(Number.NEGATIVE_INFINITY)
  const due = new Float64Array(period).fill(lastDue)
  let best = upperSeconds
  let bestHome: Int32Array | undefined
  let nodes = 0
  let complete = true
  const tolerance = roundingSeconds(problem)

  const place = (j: number, used: number, cost: number, dues: number): void => {
    if (nodes++ >= nodesMax) {
      complete = false
      return
    }
    if (j === n) {
      if (cost < best - tolerance) {
        best = cost
        bestHome = home.slice()
      }
      return
    }
    const layer = positive[j]!
    const seconds = communicationSeconds[layer]!
    if (Math.max(cost + rest[layer]!, capacity[j]! - dues) >= best - tolerance) return
    // Iterations without layers are interchangeable: offer one. So are two in the same state.
    const offered: Array<{ h: number; rise: number }> = []
    for (let h = 0; h < Math.min(used + 1, period); h++) {
      let twin = false
      for (let other = 0; other < h && !twin; other++)
        twin = channel[other] === channel[h] && worst[other] === worst[h] && due[other] === due[h]
      if (twin) continue
      const dueHere = h === used ? forwardLeftSeconds[layer]! : due[h]!
      const late = Math.max(worst[h]!, channel[h]! + seconds - backwardLeftSeconds[layer]!)
      offered.push({ h, rise: Math.max(0, late - dueHere) - Math.max(0, worst[h]! - due[h]!) })
    }
    offered.sort((a, b) => a.rise - b.rise || channel[b.h]! - channel[a.h]! || a.h - b.h)
    for (const { h, rise } of offered) {
      const channelBefore = channel[h]!
      const worstBefore = worst[h]!
      const dueBefore = due[h]!
      channel[h] = channelBefore + seconds
      worst[h] = Math.max(worstBefore, channel[h]! - backwardLeftSeconds[layer]!)
      if (h === used) due[h] = forwardLeftSeconds[layer]!
      home[j] = h
      place(j + 1, h === used ? used + 1 : used, cost + rise, dues - dueBefore + due[h]!)
      channel[h] = channelBefore
      worst[h] = worstBefore
      due[h] = dueBefore
      if (!complete) return
    }
  }
  place(0, 0, 0, lastDue * period)
  if (bestHome === undefined) return { sets: undefined, complete }
  const sets: Sets = Array.from({ length: period }, () => [])
  for (const [j, layer] of positive.entries()) sets[bestHome[j]!]!.push(layer)
  return { sets, complete }
}

/** Gives layers with nothing to synchronise a place: with the next communicating layer, else with the last one before. */
const withIdleLayers = (problem: SyncProblem, sets: ReadonlyArray<ReadonlyArray<number>>): Sets => {
  const layers = problem.communicationSeconds.length
  const home = new Int32Array(layers).fill(-1)
  for (const [h, set] of sets.entries()) for (const layer of set) home[layer] = h
  for (let layer = layers - 2; layer >= 0; layer--) if (home[layer] === -1) home[layer] = home[layer + 1]!
  for (let layer = 1; layer < layers; layer++) if (home[layer] === -1) home[layer] = home[layer - 1]!
  const full: Sets = Array.from({ length: problem.period }, () => [])
  for (const [layer, h] of home.entries()) full[Math.max(0, h)]!.push(layer)
  // Iterations are interchangeable; the one that starts communicating first comes first, as in the other planners.
  return full.toSorted((a, b) => (b.at(-1) ?? -1) - (a.at(-1) ?? -1))
}
