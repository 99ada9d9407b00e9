// Runs reference kernels on float64 arrays, and differences them: what the kernel tests share.
import { expect } from "vitest"
import type { TensorData } from "../../core/machine/tensor.ts"
import { operand, type Attributes, type Kernel, type Shape } from "../../core/kernels/kernel.ts"

export interface Value {
  readonly shape: Shape
  readonly data: TensorData
}

/** A generator of numbers in (-1, 1) that is good enough for test data (Lehmer, 48271 mod 2^31 - 1). */
export const numbers = (seed: number): (() => number) => {
  let state = (Math.abs(seed) % 2147483646) + 1
  return () => {
    state = (state * 48271) % 2147483647
    return (2 * state) / 2147483647 - 1
  }
}

const elements = (shape: Shape): number => shape.reduce((product, extent) => product * extent, 1)

/** A float64 tensor with values in (-size, size). */
export const random = (next: () => number, shape: Shape, size = 1): Value => {
  const data = new Float64Array(elements(shape))
  for (let i = 0; i < data.length; i++) data[i] = size * next()
  return { shape, data }
}

/** An int32 tensor with values in 0 .. below - 1. */
export const randomIntegers = (next: () => number, shape: Shape, below: number): Value => {
  const data = new Int32Array(elements(shape))
  for (let i = 0; i < data.length; i++) data[i] = Math.min(below - 1, Math.floor(((next() + 1) / 2) * below))
  return { shape, data }
}

export const integers = (shape: Shape, values: ReadonlyArray<number>): Value => ({
  shape,
  data: Int32Array.from(values)
})

export const floats = (shape: Shape, values: ReadonlyArray<number>): Value => ({
  shape,
  data: Float64Array.from(values)
})

const operandOf = ({ shape, data }: Value) => operand(shape, data instanceof Int32Array ? "int32" : "float32")

/** Output shapes by the kernel's own rule; throws when it has none. */
const shapesOf = (kernel: Kernel, inputs: ReadonlyArray<Value>, attributes: Attributes = {}) => {
  const shapes = kernel.shapes(inputs.map(operandOf), attributes)
  if (shapes === undefined) throw new Error(`${kernel.name} has no shape rule`)
  return shapes
}

/** Outputs in float64 (indices in int32), not rounded. */
export const run = (
  kernel: Kernel,
  inputs: ReadonlyArray<Value>,
  attributes: Attributes = {}
): ReadonlyArray<Value> => {
  const shapes = shapesOf(kernel, inputs, attributes)
  const outputs = shapes.map((shape, index): Value => {
    const size = elements(shape)
    // NaN tells an element that the kernel forgot to write
    const data =
      kernel.outputDtypes[index] === "int32" ? new Int32Array(size) : new Float64Array(size).fill(Number.NaN)
    return { shape, data }
  })
  if (kernel.reference === undefined) throw new Error(`${kernel.name} has no reference`)
  kernel.reference(
    inputs.map(({ data }) => data),
    outputs.map(({ data }) => data),
    attributes,
    { inputs: inputs.map(({ shape }) => shape), outputs: shapes }
  )
  return outputs
}

/** Every element within `tolerance` of the largest magnitude (at least 1) of the expected values. */
export const expectClose = (actual: TensorData, expected: ArrayLike<number>, tolerance: number): void => {
  expect(actual.length).toBe(expected.length)
  let size = 1
  for (let i = 0; i < expected.length; i++) size = Math.max(size, Math.abs(expected[i]!))
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i]! - expected[i]!) <= tolerance * size)) {
      expect.fail(`element ${i}: ${actual[i]!} is not within ${tolerance * size} of ${expected[i]!}`)
    }
  }
}

const step = 1e-5

/**
 * d(sum of weights * f(input)) / d input by central differences: error about step^2 / 6 times the third derivative plus
 * 1e-16 / step, so some 1e-10 for smooth functions of order one.
 */
export const differences = (input: TensorData, f: () => TensorData, weights: TensorData): Float64Array => {
  const gradient = new Float64Array(input.length)
  const weighted = (): number => {
    const out = f()
    let sum = 0
    for (let i = 0; i < out.length; i++) sum += weights[i]! * out[i]!
    return sum
  }
  for (let i = 0; i < input.length; i++) {
    const value = input[i]!
    input[i] = value + step
    const above = weighted()
    input[i] = value - step
    const below = weighted()
    input[i] = value
    gradient[i] = (above - below) / (2 * step)
  }
  return gradient
}
