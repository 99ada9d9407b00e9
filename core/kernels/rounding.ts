// The grid of values that each dtype can hold, and rounding to it: to nearest, ties to even. Exact: uses only powers of two,
// comparisons and additions, so the result is the same on every engine. Knows nothing of block scales (packing.ts).
import type { Dtype, TensorData } from "../machine/tensor.ts"

interface FloatFormat {
  /** Explicit mantissa bits. */
  readonly mantissaBits: number
  /** Exponent of the smallest normal number; below it the grid is even-spaced (subnormal). */
  readonly minExponent: number
  readonly max: number
  /** What lies beyond `max`, once rounded. */
  readonly overflow: "infinity" | "saturate"
}

/**
 * - float8 is E4M3 in its "fn" variant (OCP 8-bit floating point): bias 7, no infinity, largest value 448.
 * - float4 is E3M0 with bias 3: the 15 values 0, ±1/4, ±1/2, ±1, ±2, ±4, ±8, ±16. With no mantissa bit, "even" means the
 *   even exponent code (1, 4 and 16 are odd; 1/2, 2 and 8 even), as bit-wise rounding in hardware has it; 1/8 ties to 0.
 */
const formats = {
  bfloat16: { mantissaBits: 7, minExponent: -126, max: (2 - 2 ** -7) * 2 ** 127, overflow: "infinity" },
  float16: { mantissaBits: 10, minExponent: -14, max: 65504, overflow: "infinity" },
  float8: { mantissaBits: 3, minExponent: -6, max: 448, overflow: "saturate" },
  float4: { mantissaBits: 0, minExponent: -2, max: 16, overflow: "saturate" }
} as const satisfies Partial<Record<Dtype, FloatFormat>>

/** What tensor cores read of a float32 factor: its exponent and 10 bits of its mantissa. No tensor has it. */
const tf32: FloatFormat = {
  mantissaBits: 10,
  minExponent: -126,
  max: (2 - 2 ** -10) * 2 ** 127,
  overflow: "infinity"
}

/** Largest magnitude that the packed formats hold; int8 is used symmetrically. */
export const maxOf = { float4: 16, float8: 448, int8: 127 } as const

const scratch = new Float64Array(1)
const words = new Uint32Array(scratch.buffer)

/** floor(log2(|x|)) of a normal float64, exactly; about -1023 for zero and subnormals. */
const exponentOf = (x: number): number => {
  scratch[0] = x
  return ((words[1]! >>> 20) & 0x7ff) - 1023
}

/** 2^exponent, exactly, for -1022 <= exponent <= 1023. */
const powerOfTwo = (exponent: number): number => {
  words[0] = 0
  words[1] = (exponent + 1023) << 20
  return scratch[0]!
}

/** Nearest whole number, ties to even; exact for |x| < 2^51. */
const roundHalfEven = (x: number): number => {
  const magnitude = Math.abs(x)
  if (magnitude >= 2 ** 51) return x
  const rounded = magnitude + 2 ** 52 - 2 ** 52
  return x < 0 ? -rounded : rounded
}

const roundFloat = (x: number, format: FloatFormat): number => {
  if (Number.isNaN(x) || x === 0) return x
  const exponent = exponentOf(x)
  const magnitude = Math.abs(x)
  let rounded: number
  if (format.mantissaBits === 0 && exponent >= format.minExponent) {
    const lower = powerOfTwo(exponent)
    const codeIsEven = (exponent - format.minExponent + 1) % 2 === 0
    const up = codeIsEven ? magnitude > 1.5 * lower : magnitude >= 1.5 * lower
    rounded = up ? 2 * lower : lower
  } else {
    const quantum = powerOfTwo(Math.max(exponent, format.minExponent) - format.mantissaBits)
    rounded = roundHalfEven(magnitude / quantum) * quantum
  }
  if (rounded > format.max) rounded = format.overflow === "saturate" ? format.max : Infinity
  return x < 0 ? -rounded : rounded
}

const roundInteger = (x: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, roundHalfEven(x)))

/**
 * Rounding of one number to a dtype's grid. Floats: to nearest, ties to even; bfloat16 and float16 overflow to infinity,
 * float8 and float4 saturate. int8 and int32: to nearest, ties to even, saturating. NaN stays NaN in every float.
 */
export const round = (dtype: Dtype): ((x: number) => number) => {
  switch (dtype) {
    case "float32":
      return Math.fround
    case "int8":
      return (x) => roundInteger(x, -128, 127)
    case "int32":
      return (x) => roundInteger(x, -(2 ** 31), 2 ** 31 - 1)
    case "mxfp4":
      throw new RangeError(
        "mxfp4: 32 numbers share a scale, so none is rounded by itself; sizes alone are known"
      )
    default: {
      const format = formats[dtype]
      return (x) => roundFloat(x, format)
    }
  }
}

/** Rounding to TF32, to nearest, ties to even. */
export const toTf32 = (x: number): number => roundFloat(x, tf32)

/** Rounds every element in place. A Float32Array of float32 and an Int32Array of int32 are left as they are. */
export const roundInPlace = (data: TensorData, dtype: Dtype): void => {
  if (dtype === "float32" && data instanceof Float32Array) return
  if (dtype === "int32" && data instanceof Int32Array) return
  const toGrid = round(dtype)
  for (let i = 0; i < data.length; i++) data[i] = toGrid(data[i]!)
}
