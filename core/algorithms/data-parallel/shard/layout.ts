// How a unit's parameters lie in flat tensors that ranks divide into equal parts. Matrices and vectors lie apart, as optimizers
// decay the one and may spare the other, and so do dtypes. Knows shapes; nothing of machines.
import { elementsOf, type Dtype } from "../../../machine/tensor.ts"

/** Places of parameters, and parts, begin at multiples of so many elements: 256 bytes of two each, as views in an arena want. */
const alignment = 128

const aligned = (elements: number): number => Math.ceil(elements / alignment) * alignment

export interface Flat {
  readonly dtype: Dtype
  /** Of one rank's part: a column for matrices, so that it counts as one. */
  readonly partShape: ReadonlyArray<number>
  /** Of all parts, one behind the other. */
  readonly shape: ReadonlyArray<number>
  readonly partElements: number
  readonly members: ReadonlyArray<Member>
}

interface Member {
  /** Index among the parameters that were laid out. */
  readonly parameter: number
  /** In elements. */
  readonly offset: number
  /** Of its own; behind them, up to the next place, are zeros, which count in sums and norms as nothing. */
  readonly elements: number
}

/** Flat tensors for parameters of these shapes, matrices first, divided among so many ranks. */
export const layOut = (
  parameters: ReadonlyArray<{ readonly shape: ReadonlyArray<number>; readonly dtype: Dtype }>,
  ranks: number
): ReadonlyArray<Flat> => {
  const kinds = Map.groupBy(
    parameters.keys(),
    (index) => `${parameters[index]!.shape.length > 1 ? 0 : 1} ${parameters[index]!.dtype}`
  )
  return [...kinds]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([, indices]): Flat => {
      let offset = 0
      const members = indices.map((parameter): Member => {
        const at = offset
        const elements = elementsOf(parameters[parameter]!.shape)
        offset += aligned(elements)
        return { parameter, offset: at, elements }
      })
      const partElements = aligned(Math.ceil(offset / ranks))
      const { shape, dtype } = parameters[indices[0]!]!
      const column = shape.length > 1 ? [1] : []
      return {
        dtype,
        partElements,
        partShape: [partElements, ...column],
        shape: [ranks * partElements, ...column],
        members
      }
    })
}
