// What it means to be a kernel: one declaration (attributes, shape rule, cost, clear reference), many implementations.
// The catalogue's entries live beside this file, one file per family. Knows nothing of machines, lanes or time.
import type { TensorData } from "../machine/tensor.ts"

/** Numbers, strings and flags that select what a kernel computes; kept flat so that they can key a profile's table. */
export type Attributes = Readonly<Record<string, number | string | boolean>>

/** Work of one launch, from which a roofline estimate follows when nothing was measured. */
export interface Work {
  readonly flops: number
  readonly readBytes: number
  readonly writtenBytes: number
}

/** The shape part of a tensor, all that shape rules and costs may look at. */
export interface Operand {
  readonly shape: ReadonlyArray<number>
  readonly elements: number
  readonly sizeBytes: number
}

/**
 * One unit of device work. `copy` kernels move bytes between places of one rank; `collective` kernels move bytes
 * between ranks and have no per-rank reference (see core/kernels/collectives.ts for their value semantics).
 */
export interface Kernel {
  readonly name: string
  readonly kind: "compute" | "copy" | "collective"
  /** Shapes of the outputs, given the inputs; throws RangeError when the inputs do not fit together. */
  shapes(inputs: ReadonlyArray<Operand>, attributes: Attributes): ReadonlyArray<ReadonlyArray<number>>
  work(inputs: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>, attributes: Attributes): Work
  /**
   * Clear, slow, float64-accumulating definition of the values. Reads `inputs`, overwrites `outputs`; an operand that
   * is both (in place) appears in both lists. Absent for kernels whose values only a profile or a trace can give.
   */
  readonly reference?: (
    inputs: ReadonlyArray<TensorData>,
    outputs: ReadonlyArray<TensorData>,
    attributes: Attributes,
    shapes: { readonly inputs: ReadonlyArray<ReadonlyArray<number>>; readonly outputs: ReadonlyArray<ReadonlyArray<number>> }
  ) => void
}
