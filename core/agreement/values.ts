// Did two runs compute the same values? Integers must be equal; floats within a tolerance of their dtype, measured against
// the largest magnitude of the tensor, since sums of large terms have rounding of that size wherever they end.
import type { Journal } from "../laws/journal.ts"
import { dtypeBits, type Dtype, type Tensor, type TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"

/** Values behind a tensor of a rank when a run had ended; undefined where the machine no longer has them. */
export type ValuesOf = (rank: number, tensor: Tensor) => TensorData | undefined

export interface Tolerance {
  /** Relative to the tensor's largest magnitude, by dtype; integers have none. */
  readonly relative: (dtype: Dtype) => number
  /** Below it all differences count as rounding. */
  readonly absolute: number
}

/**
 * Sums of some thousand float32 terms in another order, carried through some steps of training: 2^-24 of rounding each, and
 * room for how a network stretches it. Narrow dtypes may in addition round to a neighbour.
 */
export const defaultTolerance: Tolerance = {
  relative: (dtype) => (dtypeBits[dtype] >= 32 ? 1e-3 : dtypeBits[dtype] >= 16 ? 2 ** -6 : 2 ** -2),
  absolute: 1e-6
}

/**
 * For values that were rounded on the wire: where they differ in the last bit before, they differ by a step of the wire's grid
 * after.
 */
export const toleranceOnWire = (wire: Dtype): Tolerance => {
  const step = wire === "float4" ? 1 : defaultTolerance.relative(wire)
  return { ...defaultTolerance, relative: (dtype) => Math.max(step, defaultTolerance.relative(dtype)) }
}

const isInteger = (dtype: Dtype): boolean => dtype === "int8" || dtype === "int32"

/** The first element that differs too much, as a phrase; undefined when none does. */
const differing = (
  dtype: Dtype,
  expected: TensorData,
  actual: TensorData,
  tolerance: Tolerance
): string | undefined => {
  if (expected.length !== actual.length) return `${expected.length} values; executed ${actual.length} values`
  let largest = 0
  for (let i = 0; i < expected.length; i++) {
    const magnitude = Math.abs(expected[i]!)
    if (magnitude > largest && magnitude < Infinity) largest = magnitude
  }
  const allowed = isInteger(dtype) ? 0 : tolerance.absolute + tolerance.relative(dtype) * largest
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(expected[i], actual[i]) || Math.abs(expected[i]! - actual[i]!) <= allowed) continue
    return `element ${i} is ${expected[i]}; executed ${actual[i]} (allowed difference ${allowed})`
  }
  return undefined
}

const describe = (rank: number, { id, name, dtype }: Tensor): string =>
  `rank ${rank}, tensor ${id} "${name}" (${dtype})`

/** What programs read, in the order they read it. */
export const compareReads = (
  expected: ReadonlyArray<Journal>,
  actual: ReadonlyArray<Journal>,
  tolerance: Tolerance
): Disagreement | undefined => {
  for (const { rank, entries } of expected) {
    const reads = entries.filter((entry) => entry.kind === "read")
    const others = actual
      .find((journal) => journal.rank === rank)
      ?.entries.filter((entry) => entry.kind === "read")
    for (const [index, { tensor, values, writer }] of reads.entries()) {
      const other = others?.[index]
      if (other === undefined) continue
      const difference = differing(tensor.dtype, values, other.values, tolerance)
      if (difference === undefined) continue
      return {
        kind: "values",
        rank,
        ...(writer < 0 ? {} : { op: writer }),
        message: `${describe(rank, tensor)}, read ${index}: simulated ${difference}`
      }
    }
  }
  return undefined
}

/** Tensors that a rank's program had not freed when it ended, in order of allocation. */
const liveTensors = ({ entries }: Journal): ReadonlyArray<Tensor> => {
  const live = new Set<Tensor>()
  for (const entry of entries) {
    if (entry.kind === "alloc") live.add(entry.tensor)
    if (entry.kind === "free") live.delete(entry.tensor)
  }
  return [...live]
}

/** Every tensor that is alive at the end; how many were compared. */
export const compareFinal = (
  journals: ReadonlyArray<Journal>,
  expected: ValuesOf,
  actual: ValuesOf,
  tolerance: Tolerance
): { readonly compared: number; readonly disagreement: Disagreement | undefined } => {
  let compared = 0
  for (const journal of journals) {
    for (const tensor of liveTensors(journal)) {
      const [one, other] = [expected(journal.rank, tensor), actual(journal.rank, tensor)]
      if (one === undefined || other === undefined) continue
      compared++
      const difference = differing(tensor.dtype, one, other, tolerance)
      if (difference === undefined) continue
      const message = `${describe(journal.rank, tensor)} at the end: simulated ${difference}`
      return { compared, disagreement: { kind: "values", rank: journal.rank, message } }
    }
  }
  return { compared, disagreement: undefined }
}
