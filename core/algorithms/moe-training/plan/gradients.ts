// Where the gradients of the dense parts are all-reduced during the backward pass: FSMoE's adaptive gradient partitioning
// (arXiv:2501.10714, section 5). Greedy as the paper's first step, and an exact search over equal pieces with a lower
// bound, in place of its differential evolution. Pure.
import type { ChunkCosts, LaneUse } from "./pipeline.ts"
import { chooseDegree, pipelineSeconds, type DegreeChoice, type DegreeModel } from "./degree.ts"

/** One MoE layer with the dense ops before it, as the backward pass meets them: the MoE part first. */
interface GradientLayer {
  /** Gradient elements of the dense part; all ready when its backward pass ends. */
  readonly elements: number
  /** Backward seconds of all that is not the pipelined part. */
  readonly denseSeconds: number
  /** Of these, messages on the lane that gradients take: none is sent beside them. Default: none. */
  readonly heldSeconds?: number
  /** Backward chunk times of the pipelined part. */
  readonly costs: ChunkCosts
}

export interface GradientProblem {
  /** In the order of the backward pass: the model's last layer first. */
  readonly layers: ReadonlyArray<GradientLayer>
  /** Seconds of one all-reduce of so many elements; 0 of none. */
  readonly allReduceSeconds: (elements: number) => number
  readonly lanes: LaneUse
  readonly degrees: ReadonlyArray<number>
  readonly by: DegreeModel
}

/** Elements all-reduced at each place of the backward pass; sums to all elements. */
export interface GradientPlan {
  /** Between the last dispatch and the first combine of each MoE layer. */
  readonly moe: ReadonlyArray<number>
  /** Beside each dense part. */
  readonly dense: ReadonlyArray<number>
  /** After the backward pass, where nothing hides it. */
  readonly rest: number
  /** Backward pipeline degree of each layer, chosen with its share of the gradient in it. */
  readonly degrees: ReadonlyArray<number>
  /** What the model says the backward pass takes, the rest included. */
  readonly seconds: number
}

/** A layer's pipelined part with `elements` of gradient in it: its best degree and time. */
const moeChoice = (problem: GradientProblem, layer: GradientLayer, elements: number): DegreeChoice =>
  chooseDegree(
    { costs: layer.costs, lanes: problem.lanes, degrees: problem.degrees, by: problem.by },
    elements > 0 ? problem.allReduceSeconds(elements) : 0
  )

/** A layer's dense part with `elements` of gradient beside it. */
const denseSeconds = (
  problem: GradientProblem,
  { denseSeconds, heldSeconds = 0 }: GradientLayer,
  elements: number
): number => Math.max(denseSeconds, heldSeconds + exposedSeconds(problem, elements))

/** Time that the lane of gradients has beside a layer's dense part. */
const besideSeconds = ({ denseSeconds, heldSeconds = 0 }: GradientLayer): number => denseSeconds - heldSeconds

const exposedSeconds = (problem: GradientProblem, elements: number): number =>
  elements > 0 ? problem.allReduceSeconds(elements) : 0

/**
 * A plan from what is sent where. Throws RangeError when a place sends gradients that are not ready there, or a negative
 * number of them.
 */
export const planOf = (
  problem: GradientProblem,
  moe: ReadonlyArray<number>,
  dense: ReadonlyArray<number>
): GradientPlan => {
  const { layers } = problem
  let pending = 0
  let total = 0
  let seconds = 0
  const degrees: Array<number> = []
  for (const [index, layer] of layers.entries()) {
    const [inMoe, inDense] = [moe[index]!, dense[index]!]
    // Sums of fractions may miss by the last digit.
    const spare = 1e-9 * (1 + total)
    if (!(inMoe >= 0 && inDense >= 0 && inMoe + inDense <= pending + spare)) {
      throw new RangeError(`layer ${index} sends ${inMoe} and ${inDense} of ${pending} elements`)
    }
    const choice = moeChoice(problem, layer, inMoe)
    degrees.push(choice.degree)
    seconds += choice.seconds + denseSeconds(problem, layer, inDense)
    pending = Math.max(0, pending - inMoe - inDense) + layer.elements
    total += layer.elements
  }
  return { moe, dense, rest: pending, degrees, seconds: seconds + exposedSeconds(problem, pending) }
}

/** Everything after the backward pass. */
export const allAtEnd = (problem: GradientProblem): GradientPlan => {
  const none = problem.layers.map(() => 0)
  return planOf(problem, none, none)
}

/** All that is pending beside every dense part, nothing in an MoE layer (Tutel-Improved). */
export const besideDense = (problem: GradientProblem): GradientPlan => {
  const { layers } = problem
  return planOf(
    problem,
    layers.map(() => 0),
    layers.map((_, index) => (index === 0 ? 0 : layers[index - 1]!.elements))
  )
}

/**
 * The plan in which every place takes of what is pending as much as `fits` says for so many idle seconds, and hands the rest
 * on to the next: first in the MoE layer, then beside the dense part.
 */
const firstInFirstOut = (
  problem: GradientProblem,
  fits: (idleSeconds: number, pending: number) => number
): GradientPlan => {
  const moe: Array<number> = []
  const dense: Array<number> = []
  let pending = 0
  const take = (gap: number): number => {
    const taken = fits(gap, pending)
    pending -= taken
    return taken
  }
  for (const layer of problem.layers) {
    moe.push(take(idleSeconds(problem, layer)))
    dense.push(take(besideSeconds(layer)))
    pending += layer.elements
  }
  return planOf(problem, moe, dense)
}

/**
 * Chunks of a fixed size, as Lina: a chunk starts whenever the link is free of all-to-alls, and is not interrupted, so the
 * last chunk started in a gap may outlast it.
 */
export const fixedChunks = (problem: GradientProblem, chunkElements: number): GradientPlan => {
  const chunkSeconds = problem.allReduceSeconds(chunkElements)
  return firstInFirstOut(problem, (gap, pending) => {
    const chunks = gap > 0 && pending > 0 ? Math.ceil(gap / chunkSeconds) : 0
    return Math.min(pending, chunks * chunkElements)
  })
}

/** Time a gradient may take in the layer before the layer takes longer, at the degree that is best without one. */
const idleSeconds = (problem: GradientProblem, layer: GradientLayer): number => {
  const { degree, seconds } = moeChoice(problem, layer, 0)
  const { lanes, degrees, by } = problem
  const secondsAt = pipelineSeconds({ costs: layer.costs, lanes, degrees, by })
  return latest(0, seconds, (gradient) => secondsAt(degree, gradient) <= seconds * (1 + 1e-12))
}

/** The largest x in [low, high] for which `holds`, which is true from `low` on up to some point; by bisection. */
const latest = (low: number, high: number, holds: (x: number) => boolean): number => {
  if (holds(high)) return high
  let [from, to] = [low, high]
  for (let i = 0; i < 60; i++) {
    const middle = (from + to) / 2
    if (holds(middle)) from = middle
    else to = middle
  }
  return from
}

/**
 * The paper's first step: each layer takes what its idle link can carry for free, first in first out, and hands the rest
 * on to the next layer.
 */
export const greedyPartition = (problem: GradientProblem): GradientPlan =>
  firstInFirstOut(problem, (gap, pending) =>
    latest(0, pending, (elements) => exposedSeconds(problem, elements) <= gap)
  )

/** Pieces over all layers that the search distributes; more pieces, nearer to the optimum over all real splits. */
const mostPieces = 256

/**
 * The best plan in which every layer's gradient is cut into equal pieces and each place sends whole pieces, oldest first:
 * dynamic programming over what is still pending. The greedy plan, if that is better.
 */
export const exactPartition = (problem: GradientProblem, pieces?: number): GradientPlan => {
  const { layers } = problem
  const each = pieces ?? Math.max(4, Math.min(32, Math.floor(mostPieces / layers.length)))
  const largest = layers.reduce((most, { elements }) => Math.max(most, elements), 0)
  const greedy = greedyPartition(problem)
  if (largest === 0) return greedy
  // Layers with less to send have fewer pieces, at least one: pieces are about equally large.
  const counts = layers.map(({ elements }) =>
    elements === 0 ? 0 : Math.max(1, Math.round((each * elements) / largest))
  )
  // Elements in the first p pieces of all, oldest first.
  const upTo = [0]
  counts.forEach((count, index) => {
    for (let p = 0; p < count; p++) upTo.push(upTo.at(-1)! + layers[index]!.elements / count)
  })
  const total = upTo.length - 1
  const sum = (from: number, to: number): number => upTo[to]! - upTo[from]!

  // State: pieces sent so far. ready[i]: pieces ready before layer i.
  const ready = [0]
  for (const count of counts) ready.push(ready.at(-1)! + count)
  let best = new Float64Array(total + 1).fill(Infinity)
  best[0] = 0
  const sentBefore: Array<Int32Array> = []
  const stage = (limit: number, seconds: (elements: number) => number): void => {
    const next = new Float64Array(total + 1).fill(Infinity)
    const from = new Int32Array(total + 1).fill(-1)
    for (let sent = 0; sent <= limit; sent++) {
      if (best[sent] === Infinity) continue
      for (let after = sent; after <= limit; after++) {
        const value = best[sent]! + seconds(sum(sent, after))
        if (value < next[after]!) {
          next[after] = value
          from[after] = sent
        }
      }
    }
    best = next
    sentBefore.push(from)
  }
  // Layers with the same costs take the same time with the same gradient; sums of fractions differ in their last digits.
  const known = new Map<unknown, Map<number, number>>()
  const remembered =
    (what: unknown, seconds: (elements: number) => number) =>
    (elements: number): number => {
      let times = known.get(what)
      if (times === undefined) known.set(what, (times = new Map()))
      const key = Math.round(elements * 1e6)
      let value = times.get(key)
      if (value === undefined) times.set(key, (value = seconds(elements)))
      return value
    }
  const exposed = remembered(problem, (elements) => exposedSeconds(problem, elements))
  layers.forEach((layer, index) => {
    stage(
      ready[index]!,
      remembered(layer.costs, (elements) => moeChoice(problem, layer, elements).seconds)
    )
    const { denseSeconds, heldSeconds = 0 } = layer
    stage(ready[index]!, (elements) => Math.max(denseSeconds, heldSeconds + exposed(elements)))
  })
  let last = 0
  let least = Infinity
  for (let sent = 0; sent <= total; sent++) {
    const value = best[sent]! + exposedSeconds(problem, sum(sent, total))
    if (value < least) [least, last] = [value, sent]
  }
  const moe = layers.map(() => 0)
  const dense = layers.map(() => 0)
  for (let index = layers.length - 1; index >= 0; index--) {
    for (const [place, from] of [
      [dense, sentBefore[2 * index + 1]!],
      [moe, sentBefore[2 * index]!]
    ] as const) {
      place[index] = sum(from[last]!, last)
      last = from[last]!
    }
  }
  const searched = planOf(problem, moe, dense)
  return searched.seconds < greedy.seconds ? searched : greedy
}

/**
 * No plan's backward pass is shorter: every layer takes its time without a gradient, and of the gradients that are ready
 * only after layer k, what the idle link of the layers after k cannot carry is exposed. `secondsPerElement` is the least
 * that an element costs; fixed costs of all-reduces are left out.
 */
export const partitionBoundSeconds = (problem: GradientProblem, secondsPerElement: number): number => {
  const { layers } = problem
  let base = 0
  let idleAfter = 0
  let elementsAfter = 0
  let exposed = 0
  for (let index = layers.length - 1; index >= 0; index--) {
    const layer = layers[index]!
    elementsAfter += layer.elements
    exposed = Math.max(exposed, elementsAfter * secondsPerElement - idleAfter)
    const seconds = moeChoice(problem, layer, 0).seconds
    base += seconds + layer.denseSeconds
    // The link carries both all-to-alls of every chunk, whatever the degree.
    const busy = Math.min(
      ...problem.degrees.map((degree) => {
        const { allToAll, allGather, reduceScatter } = layer.costs(degree)
        return degree * (2 * allToAll + (problem.lanes === "two" ? allGather + reduceScatter : 0))
      })
    )
    idleAfter += Math.max(0, seconds - busy) + besideSeconds(layer)
  }
  return base + exposed
}

/** Cuts between elements, never inside one: each place's end is rounded down. */
export const wholeElements = (problem: GradientProblem, plan: GradientPlan): GradientPlan => {
  let exact = 0
  let whole = 0
  const cut = (elements: number): number => {
    exact += elements
    const end = Math.floor(exact + 1e-6)
    const own = end - whole
    whole = end
    return own
  }
  const moe: Array<number> = []
  const dense: Array<number> = []
  plan.moe.forEach((elements, index) => {
    moe.push(cut(elements))
    dense.push(cut(plan.dense[index]!))
  })
  return planOf(problem, moe, dense)
}
