// Between which values a narrow wire may leave what is put on it, where that is known only so far: rounding never turns two numbers
// about, so the ends of what goes in give the ends of what comes out. Knows formats of wires, and nothing of runs.
import { maxOf, round } from "../kernels/rounding.ts"
import type { Dtype, TensorData } from "../machine/tensor.ts"

/** The least and the most that each element of a tensor can be. */
export interface Interval {
  readonly low: TensorData
  readonly high: TensorData
}

/** What arrives of `values`, of which each may be off by `off` to either side, over a wire of that dtype (`throughWire`). */
export const acrossWire = (values: TensorData, off: (element: number) => number, wire: Dtype): Interval => {
  // Integers travel as they are.
  if (values instanceof Int32Array) return { low: values, high: values }
  const ends = wire in maxOf ? scaledEnds(values, off, wire as keyof typeof maxOf) : roundedEnds(wire)
  const low = new Float32Array(values.length)
  const high = new Float32Array(values.length)
  for (const [i, value] of values.entries()) {
    low[i] = ends.low(value - off(i))
    high[i] = ends.high(value + off(i))
  }
  return { low, high }
}

interface Ends {
  readonly low: (least: number) => number
  readonly high: (most: number) => number
}

const roundedEnds = (wire: Dtype): Ends => {
  const toGrid = round(wire)
  return { low: toGrid, high: toGrid }
}

/** A scale for the whole tensor, which its largest element gives: it may be off as far as that one may. */
const scaledEnds = (values: TensorData, off: (element: number) => number, wire: keyof typeof maxOf): Ends => {
  const max = maxOf[wire]
  const toGrid = round(wire)
  let least = 0
  let most = 0
  for (const [i, value] of values.entries()) {
    const magnitude = Math.abs(value)
    least = Math.max(least, magnitude - off(i))
    most = Math.max(most, magnitude + off(i))
  }
  // A block with a NaN or an infinity arrives as NaN.
  if (!(most < Infinity)) return { low: () => NaN, high: () => NaN }
  // As packBlocks has it; where it is too small for a float32, zeros arrive.
  const [fine, coarse] = [Math.fround(least / max), Math.fround(most / max)]
  /** The code of x is largest for the finest scale; it is worth most on the coarsest. */
  const away = (x: number): number => (x === 0 ? 0 : toGrid(Math.min(max, x / fine)) * coarse)
  const near = (x: number): number => (x === 0 ? 0 : toGrid(Math.min(max, x / coarse)) * fine)
  return {
    low: (x) => (x < 0 ? -away(-x) : near(x)),
    high: (x) => (x > 0 ? away(x) : -near(-x))
  }
}
