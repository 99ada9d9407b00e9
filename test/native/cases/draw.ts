// How calls of kernels are drawn at random, and the pieces that most of them are made of.
import type { KernelName } from "../../../core/kernels/catalogue.ts"
import type { Attributes, Shape } from "../../../core/kernels/kernel.ts"
import type { Dtype } from "../../../core/machine/tensor.ts"

/** What a case draws from: every draw is a whole number from `min` to `max`, or a float in (-1, 1). */
export interface Draw {
  integer(min: number, max: number): number
  flag(): boolean
  float(): number
}

export interface CaseInput {
  readonly shape: Shape
  /** Undefined: any float dtype. */
  readonly dtype?: Dtype
  /** Default: floats of about one. */
  readonly value?: (index: number) => number
}

export interface KernelCase {
  readonly inputs: ReadonlyArray<CaseInput>
  readonly attributes?: Attributes
  /** Output by output, the input that it overwrites, if any. */
  readonly inPlace?: ReadonlyArray<number | undefined>
  /** Dtype of outputs that the catalogue leaves open; default any float. */
  readonly outputDtype?: Dtype
  /**
   * Where an output is stored narrow and read again, and may be rounded to either side: how far results may be off, relative to the
   * largest value of all outputs.
   */
  readonly products?: number
  /** The same, output by output, of those that are stored in 16 bits: what is computed to so much alone. */
  readonly approximate?: ReadonlyArray<number | undefined>
  /** Shapes of the outputs, where the kernel leaves them to the caller. */
  readonly outputs?: ReadonlyArray<Shape>
}

export const floats = (shape: Shape): CaseInput => ({ shape })
export const indices = (draw: Draw, shape: Shape, below: number): CaseInput => ({
  shape,
  dtype: "int32",
  value: () => draw.integer(0, below - 1)
})
export const positive = (draw: Draw, shape: Shape, dtype?: Dtype): CaseInput => ({
  shape,
  value: () => 0.5 + Math.abs(draw.float()),
  ...(dtype === undefined ? {} : { dtype })
})

/** Leading extents, empty at times, and none of them at times. */
export const leading = (draw: Draw): Shape =>
  Array.from({ length: draw.integer(0, 2) }, () => draw.integer(draw.integer(0, 9) === 0 ? 0 : 1, 7))
export const width = (draw: Draw): number => draw.integer(1, 40)

export const elementwise =
  (inputs: number, attributes: (draw: Draw) => Attributes = () => ({}), outputs = 1) =>
  (draw: Draw): KernelCase => {
    const shape = [...leading(draw), width(draw)]
    return {
      inputs: Array.from({ length: inputs }, () => floats(shape)),
      attributes: attributes(draw),
      inPlace: Array.from({ length: outputs }, (_, i) => (draw.flag() && i < inputs ? i : undefined))
    }
  }

/** A kernel's name, and how a call of it is drawn. */
export type KernelCases = Partial<Readonly<Record<KernelName, (draw: Draw) => KernelCase>>>

/** Adds the gradients so far, and `accumulate`, to a call at times; at times the result goes where they are. */
export const accumulated = (draw: Draw, gradients: ReadonlyArray<Shape>) => {
  const accumulate = draw.flag()
  const inPlace = draw.flag()
  return (inputs: ReadonlyArray<CaseInput>, attributes: Attributes = {}): KernelCase => ({
    inputs: accumulate ? [...inputs, ...gradients.map(floats)] : inputs,
    attributes: { ...attributes, accumulate },
    inPlace: gradients.map((_, i) => (accumulate && inPlace ? inputs.length + i : undefined))
  })
}
