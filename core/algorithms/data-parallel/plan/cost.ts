// What a schedule of layer-wise synchronisations costs: the one objective that every planner here minimises and every
// report quotes. Knows layers only as seconds; nothing of models, links or machines.
//
// The model (reconstructed from DreamDDP's published scheduler, arXiv:2502.11058, and carried one deadline further).
// A rank repeats iterations of H = `period`. Layers are indexed 0..L-1 in forward order. In iteration h the layers of the
// set S_h are synchronised, each once; the sets partition the layers. An iteration runs, back to back on one compute lane,
//
//   average-then-step:  U_0 F_0 U_1 F_1 ... U_{L-1} F_{L-1}   B_{L-1} ... B_0
//   step-then-average:      F_0     F_1 ...         F_{L-1}   B_{L-1} U_{L-1} ... B_0 U_0
//
// (F forward, B backward, U update). A layer's synchronisation is released when its B (average-then-step: the weights
// it averages are not touched again before U) or its U (step-then-average) ends. Synchronisations share one FIFO channel
// in release order, that is backward order L-1..0; layer l occupies it for c_l seconds. A layer with c_l = 0 has nothing
// to synchronise: it never occupies the channel and nobody waits for it.
//
// When must it have ended?
//   end-of-backward: before the iteration's backward pass is left (the published rule: every wait precedes the step;
//                    for average-then-step that is before any U, wherever U is placed).
//   next-use:        before the layer's next U (average-then-step) or F (step-then-average).
//
// The objective. Let R_l be the seconds of the backward phase after l's release, D_l the seconds of the forward phase
// before l is due (0 for end-of-backward), m the lowest layer of S with c_m > 0, and C_S(<=l) = sum of c_k, k in S, k <= l.
// The stall that iteration h causes is
//
//   W(S) = max(0, max_{l in S, c_l > 0} (C_S(<=l) - R_l) - D_m).
//
// Why. FIFO: the last synchronisation is m's; it ends at max over l in S of (release of l + everything from l on), which
// relative to the end of the backward phase is max_l (C_S(<=l) - R_l). Every other layer of S ends earlier and is due
// later, so m's due point, D_m into the next forward phase, is the only one that can stall. And nothing carries over:
// the channel is idle again by m's due point at the latest, which lies in the forward phase, before the next release.
// So iterations do not interact, the steady state is reached at once, and the exposed seconds of a period are
// sum_h W(S_h) exactly. (A test replays the timeline event by event for many periods.)
//
// Two facts that the planners and bounds rest on, for any disjoint S1, S2:
//   superadditive:  W(S1 u S2) >= W(S1) + W(S2).
//     If one of them is 0 this is monotonicity: adding layers can only raise the C_S(<=l), and lower D_m. Otherwise let
//     l1, l2 attain the maxima, l1 < l2 without loss of generality: C_{S1 u S2}(<=l2) >= C_{S1}(<=l1) + C_{S2}(<=l2)
//     = W(S1) + R_{l1} + D_{m1} + W(S2) + R_{l2} + D_{m2}. Subtract R_{l2} and D_{min(m1,m2)}; what is left over is >= 0.
//   So splitting a set over two iterations never hurts, and dropping layers never raises the cost.

/** One layer's times in seconds. Communication is one synchronisation of the whole layer; 0 if it has no parameters. */
export interface LayerTimes {
  readonly forwardSeconds: number
  readonly backwardSeconds: number
  readonly updateSeconds: number
  readonly communicationSeconds: number
  /** Default: those whose communication takes time. Differs where links are free. */
  readonly hasParameters?: boolean
}

/** When an average must have ended: before the optimizer's step, or before the layer is used next. */
export type Deadline = "end-of-backward" | "next-use"
/** Whether the averaged weights are those before the local update (published trainer) or after it. */
export type UpdateOrder = "average-then-step" | "step-then-average"

/** An instance: everything the objective depends on. Arrays are indexed by layer in forward order, length L. */
export interface SyncProblem {
  /** H: every layer is synchronised once in this many iterations. */
  readonly period: number
  /** c_l, seconds on the channel. */
  readonly communicationSeconds: Float64Array
  /** R_l, seconds of the backward phase after l's release; non-decreasing in l. */
  readonly backwardLeftSeconds: Float64Array
  /** D_l, seconds of the forward phase before l is due; non-decreasing in l, all 0 for end-of-backward. */
  readonly forwardLeftSeconds: Float64Array
  /** No part of the cost; the equal-number partition counts these layers. */
  readonly hasParameters: ReadonlyArray<boolean>
  /** R and D that no layer's are above, where those are below what they may be: a bound goes by these. Default: the same. */
  readonly atBest?: Pick<SyncProblem, "backwardLeftSeconds" | "forwardLeftSeconds">
}

/** What an instance is made with beside the layers' times; `period` is H, in iterations. */
export interface SyncRules {
  readonly period: number
  readonly deadline: Deadline
  /** Default "average-then-step", as published. */
  readonly order?: UpdateOrder
}

/**
 * The instance of a model's layer times (forward order).
 * Throws RangeError for a period that is no positive integer or a time that is negative or not finite.
 */
export const syncProblem = (layers: ReadonlyArray<LayerTimes>, rules: SyncRules): SyncProblem => {
  if (!Number.isSafeInteger(rules.period) || rules.period < 1)
    throw new RangeError(`period must be a positive integer, got ${rules.period}`)
  const communicationSeconds = new Float64Array(layers.length)
  const backwardLeftSeconds = new Float64Array(layers.length)
  const forwardLeftSeconds = new Float64Array(layers.length)
  const updateInBackward = rules.order === "step-then-average"
  let backward = 0
  let forward = 0
  for (const [index, layer] of layers.entries()) {
    for (const seconds of [
      layer.forwardSeconds,
      layer.backwardSeconds,
      layer.updateSeconds,
      layer.communicationSeconds
    ])
      if (!(seconds >= 0 && seconds < Number.POSITIVE_INFINITY))
        throw new RangeError(`layer ${index} has a time that is negative or not finite: ${seconds}`)
    communicationSeconds[index] = layer.communicationSeconds
    backwardLeftSeconds[index] = backward
    forwardLeftSeconds[index] = rules.deadline === "next-use" ? forward : 0
    backward += layer.backwardSeconds + (updateInBackward ? layer.updateSeconds : 0)
    forward += layer.forwardSeconds + (updateInBackward ? 0 : layer.updateSeconds)
  }
  const hasParameters = layers.map((layer) => layer.hasParameters ?? layer.communicationSeconds > 0)
  return {
    period: rules.period,
    communicationSeconds,
    backwardLeftSeconds,
    forwardLeftSeconds,
    hasParameters
  }
}

/** When a layer's synchronisation may begin and when it must have ended, on anyone's clock, seconds. */
export interface Window {
  readonly release: number
  readonly due: number
}

/**
 * The instance of releases and dues that are known by themselves (of a model in parts), of each layer; undefined for a layer that
 * has nothing to synchronise. The objective wants lower layers released no sooner, and due no later: where they are not (a part
 * that nothing reads in the backward pass is free before it), the instance is the tightest one that no schedule does worse than, and
 * `atBest` the loosest, which none does better than.
 */
export const timedProblem = (
  times: ReadonlyArray<Window | undefined>,
  communicationSeconds: Float64Array,
  hasParameters: ReadonlyArray<boolean>,
  period: number
): SyncProblem => {
  const origin = times.reduce((least, time) => Math.min(least, time?.due ?? least), Number.MAX_VALUE)
  const left = times.map((time) => (time === undefined ? undefined : origin - time.release))
  const before = times.map((time) => (time === undefined ? undefined : time.due - origin))
  const tight = { backward: notAbove(left), forward: notAbove(before) }
  const loose = { backward: notBelow(left), forward: notBelow(before) }
  const apart = (one: Float64Array, other: Float64Array): boolean =>
    one.some((seconds, layer) => other[layer]! - seconds > 1e-9 * Math.abs(other[layer]!))
  return {
    period,
    communicationSeconds,
    backwardLeftSeconds: tight.backward,
    forwardLeftSeconds: tight.forward,
    hasParameters,
    ...(apart(tight.backward, loose.backward) || apart(tight.forward, loose.forward)
      ? { atBest: { backwardLeftSeconds: loose.backward, forwardLeftSeconds: loose.forward } }
      : {})
  }
}

/** The largest non-decreasing values that are nowhere above the known ones. */
const notAbove = (values: ReadonlyArray<number | undefined>): Float64Array => {
  const below = new Float64Array(values.length)
  let least = Number.POSITIVE_INFINITY
  for (let layer = values.length - 1; layer >= 0; layer--) {
    least = Math.min(least, values[layer] ?? least)
    below[layer] = least === Number.POSITIVE_INFINITY ? 0 : least
  }
  return lastKnown(below, values)
}

/** The smallest that are nowhere below. */
const notBelow = (values: ReadonlyArray<number | undefined>): Float64Array => {
  let most = Number.NEGATIVE_INFINITY
  return Float64Array.from(values, (value) => {
    most = Math.max(most, value ?? most)
    return most === Number.NEGATIVE_INFINITY ? 0 : most
  })
}

/** Layers above the last known one have nothing to synchronise: they go on from it. */
const lastKnown = (values: Float64Array, known: ReadonlyArray<number | undefined>): Float64Array => {
  const last = known.findLastIndex((value) => value !== undefined)
  return last < 0 ? values : values.fill(values[last]!, last + 1)
}

/**
 * Seconds by which the set's last synchronisation misses its deadline; negative = seconds to spare, -Infinity if the
 * set has nothing to synchronise. `ascending` lists layers in ascending order. W(S) is its positive part.
 */
export const latenessSeconds = (problem: SyncProblem, ascending: ReadonlyArray<number>): number => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  let channel = 0
  let worst = Number.NEGATIVE_INFINITY
  let due = 0
  for (const layer of ascending) {
    const seconds = communicationSeconds[layer]!
    if (seconds === 0) continue
    if (channel === 0) due = forwardLeftSeconds[layer]!
    channel += seconds
    const late = channel - backwardLeftSeconds[layer]!
    if (late > worst) worst = late
  }
  return worst - due
}

/** W(S): seconds the compute lane stalls for the synchronisations of one iteration. Layers in ascending order. */
export const exposedSecondsOf = (problem: SyncProblem, ascending: ReadonlyArray<number>): number => {
  const late = latenessSeconds(problem, ascending)
  return late > 0 ? late : 0
}

/**
 * Differences of this many seconds are rounding: the objective subtracts sums of the size of the whole communication or
 * backward phase from each other, so what should be 0 may come out as a few units in their last place.
 */
export const roundingSeconds = (problem: SyncProblem): number => {
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const channel = communicationSeconds.reduce((sum, seconds) => sum + seconds, 0)
  return 1e-12 * (channel + (backwardLeftSeconds.at(-1) ?? 0) + (forwardLeftSeconds.at(-1) ?? 0))
}

/** The cost of a whole period. */
export interface SyncCost {
  /** W(S_h) per iteration h, seconds. Under next-use the stall falls into the forward phase of iteration h+1. */
  readonly perIterationSeconds: ReadonlyArray<number>
  /** Their sum: seconds exposed in `period` iterations. */
  readonly totalSeconds: number
}

/**
 * Cost of the sets of one period; each set in any order. A layer may be in several sets (bubble filling) or none.
 * Throws RangeError if there are more sets than iterations, or a set names a layer twice or one that does not exist.
 */
export const evaluateSets = (problem: SyncProblem, sets: ReadonlyArray<ReadonlyArray<number>>): SyncCost => {
  if (sets.length > problem.period)
    throw new RangeError(`${sets.length} sets for a period of ${problem.period} iterations`)
  const layers = problem.communicationSeconds.length
  let totalSeconds = 0
  const perIterationSeconds = sets.map((set) => {
    const ascending = set.toSorted((a, b) => a - b)
    for (const [position, layer] of ascending.entries())
      if (!(Number.isInteger(layer) && layer >= 0 && layer < layers) || ascending[position - 1] === layer)
        throw new RangeError(`a set names layer ${layer} twice, or it is not one of 0..${layers - 1}`)
    const seconds = exposedSecondsOf(problem, ascending)
    totalSeconds += seconds
    return seconds
  })
  return { perIterationSeconds, totalSeconds }
}
