// What tensors hold at first: values of the host, or kernels that make them where they lie. Knows no machine.
import { kernels } from "../kernels/catalogue.ts"
import { evaluate } from "../kernels/evaluate.ts"
import { checkCall, operand } from "../kernels/kernel.ts"
import type { Drawn, Initial, Tensor, TensorData, TensorSpec } from "./tensor.ts"

/** Values, or what makes them; neither for zeros. */
interface First {
  readonly values: TensorData | undefined
  readonly drawn: ReadonlyArray<Drawn>
}

export const firstOf = (initial: Initial | TensorData | undefined): First => {
  if (typeof initial === "function") return { values: initial(), drawn: [] }
  if (initial === undefined || isValues(initial)) return { values: initial, drawn: [] }
  return { values: undefined, drawn: initial }
}

const isValues = (initial: ReadonlyArray<Drawn> | TensorData): initial is TensorData =>
  ArrayBuffer.isView(initial)

/** Why a tensor cannot begin so, as a phrase. */
export const firstMisfit = (tensor: Tensor, { values, drawn }: First): string | undefined => {
  if (values !== undefined && values.length !== tensor.elements)
    return `${values.length} initial values for ${tensor.elements} elements`
  try {
    for (const { kernel, attributes } of drawn) {
      checkCall(kernels[kernel], [tensor], [tensor], attributes)
      // Its window is its work.
      kernels[kernel].work([tensor], [tensor], attributes)
    }
  } catch (error) {
    if (error instanceof RangeError) return error.message
    throw error
  }
  return undefined
}

/** The values that a tensor begins with, on the host, rounded to its dtype where they are drawn. */
export const initialValues = ({
  shape,
  dtype,
  initial
}: Pick<TensorSpec, "shape" | "dtype" | "initial">): TensorData => {
  const { values, drawn } = firstOf(initial)
  const own = operand(shape, dtype)
  const all = values ?? (dtype === "int32" ? new Int32Array(own.elements) : new Float32Array(own.elements))
  for (const { kernel, attributes } of drawn)
    evaluate(kernels[kernel], [own], [all], [own], [all], attributes)
  return all
}

/**
 * Elements `from` to `to` of a tensor that begins so, as part of another one, from element `at` on; none where none are made.
 * A count of 0 is all from `at` on, as kernels take it. Throws RangeError for a window of a matrix, which is no stretch.
 */
export const stretchOf = (drawn: Drawn, from: number, to: number, at: number): ReadonlyArray<Drawn> => {
  const { first = 0, at: own = 0, count = 0, columns = 0, ...rest } = drawn.attributes
  if (columns !== 0) throw new RangeError(`${drawn.kernel}: no stretch of a window of columns`)
  const begin = Math.max(from, own)
  const end = count === 0 ? to : Math.min(to, own + count)
  if (end <= begin) return []
  const window = { first: first + begin - own, at: at + begin - from, count: end - begin }
  return [{ kernel: drawn.kernel, attributes: { ...rest, ...window } }]
}
