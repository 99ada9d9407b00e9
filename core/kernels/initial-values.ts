// Values that tensors begin with, made where they lie: nothing comes from the host, and each is drawn by its index, so that a part
// of a tensor draws what the whole would have there.
import type { TensorData } from "../machine/tensor.ts"
import { normals, uniforms } from "./counter-hash.ts"
import { defineKernel, number, type Operand, type Values } from "./kernel.ts"

/**
 * Which elements are written, and from which place of what is drawn: out[at + i] is number
 * `first + floor(i / columns) * stride + i mod columns`, for i below `count`. So some columns of a matrix are one launch.
 * A count of 0 is all from `at` on; columns of 0 are as many as are written. What is not written stays as it is.
 */
const window = { first: number(0), at: number(0), count: number(0), columns: number(0), stride: number(0) }

interface Windowed {
  readonly a: Values<typeof window>
  readonly rows: number
}

/** How many of `rows` elements are written. Throws RangeError for a window that is none, or leaves the tensor. */
const writtenOf = ({ a, rows }: Windowed): number => {
  for (const name of ["first", "at", "count", "columns", "stride"] as const) {
    if (Number.isSafeInteger(a[name]) && a[name] >= 0) continue
    throw new RangeError(`initial values: "${name}" is ${a[name]}; expected a whole number from 0`)
  }
  if (a.at + a.count > rows)
    throw new RangeError(`initial values: ${a.count} elements from ${a.at} on, of a tensor of ${rows}`)
  return a.count === 0 ? rows - a.at : a.count
}

const write = (out: TensorData, { a }: Pick<Windowed, "a">, numberOf: (index: number) => number): void => {
  const written = writtenOf({ a, rows: out.length })
  const columns = a.columns === 0 ? written : a.columns
  for (let i = 0; i < written; i++)
    out[a.at + i] = numberOf(a.first + Math.floor(i / columns) * a.stride + (i % columns))
}

/** What such kernels share, of so many operations for a number. In place: the input's values are not looked at. */
const drawing = (operations: number) => ({
  signature: "inp[...] -> out[...]",
  flops: (call: Windowed) => operations * writtenOf(call),
  readBytes: () => 0,
  writtenBytes: (call: Windowed, _: unknown, [out]: readonly [Operand, ...unknown[]]) =>
    call.rows === 0 ? 0 : Math.ceil((out.sizeBytes * writtenOf(call)) / call.rows)
})

/** deviation * normal number, by its index, of `seed`: mean 0, within 6 deviations. Rounded to the tensor's dtype. */
export const normalValues = defineKernel({
  name: "normal_values",
  // six words of some ten operations each, and their sum
  ...drawing(75),
  attributes: { seed: number(), deviation: number(1), ...window },
  reference: (_, [out], call) => {
    const draw = normals(call.a.seed)
    write(out, call, (index) => call.a.deviation * draw(index))
  }
})

/** low + (high - low) * uniform number, by its index, of `seed`: from `low`, below `high` but for rounding. */
export const uniformValues = defineKernel({
  name: "uniform_values",
  ...drawing(25),
  attributes: { seed: number(), low: number(0), high: number(1), ...window },
  reference: (_, [out], call) => {
    const { seed, low, high } = call.a
    const draw = uniforms(seed)
    write(out, call, (index) => low + (high - low) * draw(index))
  }
})

/** `value`, everywhere. */
export const constantValues = defineKernel({
  name: "constant_values",
  ...drawing(0),
  attributes: { value: number(), ...window },
  reference: (_, [out], call) => write(out, call, () => call.a.value)
})
