// Did two runs compute the same values? Integers must be equal; floats are counted in steps of the tensor's own grid, more
// loosely only where a narrower one lies upstream. Small elements count by their own size. Where updates make as much of a
// gradient that is all rounding as of any other (AdamW), some elements may have gone the other way.
import type { Journal } from "../laws/journal.ts"
import type { Dtype, Tensor, TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"
import {
  isNarrow,
  isSkippedBy,
  leastStep,
  mantissaBits,
  narrowed,
  nothing,
  scalingApart,
  scalingOf,
  type Passed,
  type Sums
} from "./narrow.ts"

/** Values behind a tensor of a rank when a run had ended; undefined where the machine no longer has them. */
export type ValuesOf = (rank: number, tensor: Tensor) => TensorData | undefined

/** How far values of two machines may be apart, counted in steps of their dtype's grid. */
export interface Tolerance {
  /**
   * How many steps of its grid an element of that dtype may be off, a step at x being |x| * 2^-(mantissa bits). An element
   * smaller than the tensor's mean magnitude, zeros aside, may be off by as many steps there: terms of a sum that cancel leave that much.
   * Of elements counted at their own size alone, at most `smallMost` may be further off.
   */
  readonly steps: (dtype: Dtype) => number
  readonly smallMost: number
  /** Below it all differences count as rounding. */
  readonly absolute: number
  /** How often the real machine rounds a sum over members. */
  readonly sums: Sums
}

/**
 * 2^13 steps of float32, 1e-3: sums of some thousand terms in another order, carried through a few steps of training, where
 * tiny models have shown up to 500 steps, and 7000 where AdamW divides a gradient that is all rounding by its own size. Narrow
 * grids: a neighbour, or the one after. A third to a half of a tensor may be
 * all cancellation (gradients of a key's bias, which are zero but for rounding).
 */
export const defaultTolerance: Tolerance = {
  steps: (dtype) => (mantissaBits[dtype] >= 23 ? 8192 : 2),
  smallMost: 0.75,
  absolute: 1e-8,
  sums: "once"
}

/**
 * Downstream of a narrow grid: elements that two machines rounded to different sides may be a step of it apart (of a scale
 * that the tensor's largest gives, or where the grid ends), but they are few: so much of a step, in the mean over the tensor,
 * beside the one element that is furthest off. Rounding is all or nothing: what turned is off by a whole step, so that one element
 * of n puts 1 / n of a step of the largest into the mean, more than 1 / 16 of a step of the mean size wherever
 * n < 16 * largest / mean. Without that one left out, a mean would forbid of few elements what is allowed of each. Two that turn
 * independently are as rare as the square of one, so one is left out, whatever n is; and it is held to its own step.
 */
const flippedMean = 1 / 16
/**
 * Rounded again and again, one behind the other, what differs anywhere differs everywhere: each time as two roundings that know
 * nothing of each other, which are a quarter of a step apart in the mean (0.8 * sqrt(2 / 12) * 0.72 for the spread of sizes
 * between two powers of two); and these add up as a random walk does, by the root of how often.
 */
const unrelatedMean = 1 / 4

/**
 * Of what AdamW moves an element by, so much may be rounding's own with no narrow grid in sight: a gradient that is all rounding (a
 * key's bias, whose gradient cancels) is some 1e-11 of float32 beside an epsilon of 1e-8, and the update is that share of its swing.
 * Calibrated: 1.2e-3 is the most that soaks have met, one in 6,000 tiny models. Behind a narrow grid an update may go the other way.
 */
const unsteady = 1 / 128

/**
 * Of a tensor that such updates have moved, at most so many elements may have gone another way: gradients of keys' biases are
 * all rounding, and are a third of a packed bias.
 */
const astrayMost = 0.5

const isInteger = (dtype: Dtype): boolean => dtype === "int8" || dtype === "int32"

/** How far two tensors are apart: 1 is as far as they may be. */
interface Gap {
  readonly ratio: number
  /** Where they are furthest apart, as a phrase. */
  readonly message: string
}

const equal: Gap = { ratio: 0, message: "equal" }

const apart = (a: number, b: number): number => (Object.is(a, b) || a === b ? 0 : Math.abs(a - b))

type Kind = Pick<Tensor, "dtype" | "shape">

/** How far elements of a tensor may be off, by what its values have passed. */
interface Margins {
  /** Of its own grid, and of the coarsest that they have passed, at 1; the least that this one's may be. */
  readonly step: number
  readonly coarse: number
  readonly least: number
  /** Mean magnitude of its elements. */
  readonly mean: number
  /** Of an element of that size. */
  readonly at: (size: number) => number
  /** Of one that updates have moved another way. */
  readonly strays: number
}

const marginsOf = (
  { dtype, shape }: Kind,
  values: TensorData,
  tolerance: Tolerance,
  { grid, roundings, swing }: Passed
): Margins => {
  let sum = 0
  let counted = 0
  let largest = 0
  for (const value of values) {
    const magnitude = Math.abs(value)
    // Padding has no size.
    if (!(magnitude < Infinity && magnitude > 0)) continue
    sum += magnitude
    counted++
    if (magnitude > largest) largest = magnitude
  }
  const mean = counted === 0 ? 0 : sum / counted
  const step = tolerance.steps(dtype) * gridStep(dtype)
  const narrow = isNarrow(grid)
  const often = Math.sqrt(Math.max(1, roundings))
  const coarse = gridStep(grid) * often
  const least = leastStep(grid) * often
  const flipped = narrow ? Math.max(coarse * largest, least) : 0
  return {
    step,
    coarse,
    least,
    mean,
    at: (size) => tolerance.absolute + Math.max(step * Math.max(size, mean), flipped),
    // One machine's update went up by its swing, the other's down; or gradients that cancel, as those of biases do and no matrix's.
    strays: (narrow ? 2 : shape.length === 1 ? unsteady : 0) * swing
  }
}

/** How far each element of a tensor may be off, by itself; integers are not. */
export const mayBeOff = (
  tensor: Kind,
  values: TensorData,
  tolerance: Tolerance,
  passed: Passed
): ((element: number) => number) => {
  if (isInteger(tensor.dtype)) return () => 0
  const { at, strays } = marginsOf(tensor, values, tolerance, passed)
  return (element) => Math.max(strays, at(Math.abs(values[element]!)))
}

/** Compares values of one tensor: `grid` is the coarsest that they have passed, and updates have moved an element by `swing`. */
export const gapBetween = (
  tensor: Kind,
  expected: TensorData,
  actual: TensorData,
  tolerance: Tolerance,
  passed: Passed = nothing
): Gap => {
  const n = expected.length
  if (n !== actual.length)
    return { ratio: Infinity, message: `${n} values; executed ${actual.length} values` }
  const element = (i: number, allowed: number): string =>
    `element ${i} is ${expected[i]}; executed ${actual[i]} (allowed difference ${allowed})`
  if (isInteger(tensor.dtype)) {
    const first = expected.findIndex((value, i) => value !== actual[i])
    return first < 0 ? equal : { ratio: Infinity, message: element(first, 0) }
  }
  const { step, coarse, least, mean, at, strays } = marginsOf(tensor, expected, tolerance, passed)
  let worst = equal
  let total = 0
  let furthest = 0
  let small = 0
  let astray = 0
  for (let i = 0; i < n; i++) {
    const difference = apart(expected[i]!, actual[i]!)
    if (difference === 0) continue
    const size = Math.abs(expected[i]!)
    const allowed = at(size)
    const ratio = difference < Infinity ? difference / allowed : Infinity
    if (ratio > 1 && difference <= strays) {
      astray++
      continue
    }
    if (ratio > worst.ratio) worst = { ratio, message: element(i, allowed) }
    total += difference
    if (difference > furthest) furthest = difference
    if (difference > tolerance.absolute + step * size) small++
  }
  if (astray > 0) {
    const ratio = astray / (astrayMost * n)
    if (ratio > worst.ratio)
      worst = { ratio, message: `${astray} of ${n} elements went another way, by at most ${strays}` }
  }
  if (isNarrow(passed.grid)) {
    const few = passed.roundings <= 1 ? flippedMean : unrelatedMean
    const allowed = tolerance.absolute + Math.max(step * mean, few * Math.max(coarse * mean, least))
    const others = (total - furthest) / n
    const ratio = others / allowed
    if (ratio > worst.ratio)
      worst = {
        ratio,
        message: `all ${n} elements but the one furthest off: mean difference ${others}, allowed ${allowed} after ${passed.grid}`
      }
  } else if (small > tolerance.smallMost * n && worst.ratio <= 1) {
    const share = small / (tolerance.smallMost * n)
    worst = {
      ratio: share,
      message: `${small} of ${n} elements differ by more than ${step} of themselves, ${worst.message}`
    }
  }
  return worst
}

/** Of int8 that travels, a step is what its largest code is one of: 127 (packing.ts), not 128. */
export const gridStep = (dtype: Dtype): number =>
  dtype === "int8" ? 1 / 127 : 1 / (1 << mantissaBits[dtype])

export const describe = (rank: number, { id, name, dtype }: Tensor): string =>
  `rank ${rank}, tensor ${id} "${name}" (${dtype})`

/** A read that both programs made, the n-th of its rank. */
interface ComparedRead {
  readonly rank: number
  /** Steps that the rank's program had ended. */
  readonly step: number
  readonly read: number
  readonly writer: number
  readonly tensor: Tensor
  readonly gap: Gap
}

/** What programs read, rank by rank in the order they read it. */
export const comparedReads = function* (
  expected: ReadonlyArray<Journal>,
  actual: ReadonlyArray<Journal>,
  tolerance: Tolerance
): Generator<ComparedRead> {
  const grids = narrowed(expected, tolerance.sums)
  for (const { rank, entries } of expected) {
    const others = actual
      .find((journal) => journal.rank === rank)
      ?.entries.filter((entry) => entry.kind === "read")
    let step = 0
    let read = 0
    for (const [at, entry] of entries.entries()) {
      if (entry.kind === "endStep") step++
      if (entry.kind !== "read") continue
      const { tensor, values, writer } = entry
      const other = others?.[read]
      if (other !== undefined) {
        const gap = gapBetween(tensor, values, other.values, tolerance, grids.atEntry(rank, at))
        yield { rank, step, read, writer, tensor, gap }
      }
      read++
    }
  }
}

/** The first read that differs by more than it may. */
export const compareReads = (
  expected: ReadonlyArray<Journal>,
  actual: ReadonlyArray<Journal>,
  tolerance: Tolerance
): Disagreement | undefined => {
  for (const { rank, read, writer, tensor, gap } of comparedReads(expected, actual, tolerance)) {
    if (gap.ratio <= 1) continue
    return {
      kind: "values",
      rank,
      ...(writer < 0 ? {} : { op: writer }),
      message: `${describe(rank, tensor)}, read ${read}: simulated ${gap.message}`
    }
  }
  return undefined
}

/**
 * Tensors that a rank's program had not freed when it ended, in order of allocation: without arenas, and without what lies in
 * one and was overwritten there, by whatever took its place.
 */
const liveTensors = ({ entries }: Journal): ReadonlyArray<Tensor> => {
  const live = new Set<Tensor>()
  const written = new Map<Tensor, number>()
  for (const [index, entry] of entries.entries()) {
    if (entry.kind === "alloc") live.add(entry.tensor)
    if (entry.kind === "free") live.delete(entry.tensor)
    if (entry.kind === "op") for (const tensor of entry.op.writes) written.set(tensor, index)
  }
  const inArenas = Map.groupBy(
    [...written.keys()].filter(({ within }) => within !== undefined),
    ({ within }) => within!.arena
  )
  const overwritten = (tensor: Tensor): boolean =>
    (inArenas.get(tensor.within!.arena) ?? []).some(
      (other) => written.get(other)! > (written.get(tensor) ?? -1) && overlap(tensor, other)
    )
  return [...live].filter((tensor) =>
    tensor.within === undefined ? !inArenas.has(tensor) : !overwritten(tensor)
  )
}

const isFinite = (values: TensorData): boolean => values.every((value) => Math.abs(value) < Infinity)

const overlap = (one: Tensor, other: Tensor): boolean => {
  const [a, b] = [one.within!.offsetBytes, other.within!.offsetBytes]
  return a < b + other.sizeBytes && b < a + one.sizeBytes
}

/** Gradients of a scaled loss are held as those of a plain one, times the scale. */
export const ofScaledLoss = (tolerance: Tolerance, scale = 1): Tolerance =>
  scale > 1 && scale < Infinity ? { ...tolerance, absolute: tolerance.absolute * scale } : tolerance

/** Every tensor that is alive at the end; how many were compared. */
export const compareFinal = (
  journals: ReadonlyArray<Journal>,
  expected: ValuesOf,
  actual: ValuesOf,
  tolerance: Tolerance
): { readonly compared: number; readonly disagreement: Disagreement | undefined } => {
  let compared = 0
  const grids = narrowed(journals, tolerance.sums)
  for (const journal of journals) {
    const { rank } = journal
    const scaling = scalingOf(journal)
    const [state, theirs] = scaling === undefined ? [] : [expected(rank, scaling), actual(rank, scaling)]
    const apart = state && theirs && scalingApart(state, theirs)
    if (apart !== undefined) {
      const message = `${describe(rank, scaling!)} at the end: ${apart}`
      return { compared, disagreement: { kind: "values", rank, message } }
    }
    const skipped = state !== undefined && isSkippedBy(state)
    const scaled = ofScaledLoss(tolerance, state?.[0])
    for (const tensor of liveTensors(journal)) {
      const [one, other] = [expected(rank, tensor), actual(rank, tensor)]
      if (one === undefined) continue
      if (other === undefined) {
        const message = `${describe(rank, tensor)} at the end: the real run has no values of it`
        return { compared, disagreement: { kind: "values", rank, message } }
      }
      const passed = grids.atEnd(rank, tensor)
      // Of gradients that overflowed, for which both have skipped the step, nothing is left to compare: infinite here, NaN there.
      if (skipped && passed.scaled && !(isFinite(one) && isFinite(other))) continue
      compared++
      const gap = gapBetween(tensor, one, other, passed.scaled ? scaled : tolerance, passed)
      if (gap.ratio <= 1) continue
      const message = `${describe(rank, tensor)} at the end: simulated ${gap.message}`
      return { compared, disagreement: { kind: "values", rank, message } }
    }
  }
  return { compared, disagreement: undefined }
}
