// Narrow formats for values that travel: float4, float8 and int8 with one scale per block, bfloat16 without.
// A packed tensor has the packed dtype (so its bytes are right), and its values are the grid's own numbers: E3M0 values
// -16..16 for float4, E4M3 values for float8, codes -127..127 for int8. value = grid number * scale of its block.
import { elementsOf, type TensorData } from "../machine/tensor.ts"
import { defineKernel, number } from "./kernel.ts"
import { maxOf, round } from "./rounding.ts"

type ScaledFormat = keyof typeof maxOf

/** Elements of block `index`: from `index * size` up to the next; a size of 0 means one block for everything. */
const blockSize = (block: number, elements: number): number => (block === 0 ? Math.max(1, elements) : block)

/**
 * Packs one array. A block's scale is (largest magnitude) / (largest grid number), in float32 and 0 for a block of zeros;
 * values are rounded to the nearest grid number, ties to even. A block with a NaN or an infinity gets the scale NaN: it
 * unpacks to NaN rather than losing the fault. A block whose scale falls below float32's smallest is packed as zeros.
 */
export const packBlocks = (
  inp: TensorData,
  out: TensorData,
  scales: TensorData,
  format: ScaledFormat,
  block: number
): void => {
  const toGrid = round(format)
  const max = maxOf[format]
  const size = blockSize(block, inp.length)
  for (let start = 0, index = 0; start < inp.length; start += size, index++) {
    const end = Math.min(inp.length, start + size)
    let largest = 0
    for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(inp[i]!))
    const scale = Number.isFinite(largest) ? Math.fround(largest / max) : Number.NaN
    scales[index] = scale
    const usable = scale > 0
    for (let i = start; i < end; i++) {
      const code = usable ? toGrid(inp[i]! / scale) : 0
      out[i] = Math.min(max, Math.max(-max, code))
    }
  }
}

/** out = grid number * scale of its block. */
export const unpackBlocks = (inp: TensorData, scales: TensorData, out: TensorData, block: number): void => {
  const size = blockSize(block, inp.length)
  for (let i = 0; i < inp.length; i++) out[i] = inp[i]! * scales[Math.floor(i / size)]!
}

const attributes = {
  /** Elements that share a scale, in the order of memory; 0: the whole tensor. */
  block: number(0)
}

const blocksOf = (block: number, elements: number): number =>
  elements === 0 ? 0 : Math.ceil(elements / blockSize(block, elements))

const declarePack = <const Name extends string>(name: Name, format: ScaledFormat) =>
  defineKernel({
    name,
    signature: "inp[...] -> out[...], scales[elements / block, rounded up]",
    attributes,
    shapes: ([inp, ...others], { block }) => {
      if (inp === undefined || others.length > 0) throw new RangeError(`${name}: expected one input`)
      return [inp, [blocksOf(block, elementsOf(inp))]]
    },
    outputDtypes: [format, "float32"],
    // magnitude, comparison, division, rounding
    flops: (_, [inp]) => 4 * inp.elements,
    reference: ([inp], [out, scales], { a }) => packBlocks(inp, out, scales, format, a.block)
  })

const declareUnpack = <const Name extends string>(name: Name, format: ScaledFormat) =>
  defineKernel({
    name,
    signature: "inp[...], scales[elements / block, rounded up] -> out[...]",
    attributes,
    shapes: ([inp, scales, ...others], { block }) => {
      if (inp === undefined || scales === undefined || others.length > 0) {
        throw new RangeError(`${name}: expected two inputs`)
      }
      const expected = blocksOf(block, elementsOf(inp))
      if (scales.length !== 1 || scales[0] !== expected) {
        throw new RangeError(
          `${name}: input 1 (scales) has shape [${scales.join(", ")}]; expected [${expected}]`
        )
      }
      return [inp]
    },
    inputDtypes: [format, "float32"],
    flops: (_, [inp]) => inp.elements,
    reference: ([inp, scales], [out], { a }) => unpackBlocks(inp, scales, out, a.block)
  })

/**
 * float4 is E3M0: 1 sign, 3 exponent and no mantissa bits, the grid 0, ±1/4, ±1/2, ±1, ±2, ±4, ±8, ±16 (bias 3). Streaming
 * DiLoCo (arXiv:2501.18512) sends pseudo-gradients so; it does not say how it scales them: the block scale is ours.
 */
export const packFloat4 = declarePack("pack.float4", "float4")
export const unpackFloat4 = declareUnpack("unpack.float4", "float4")
/** float8 is E4M3 (fn): up to 448, subnormals down to 2^-9. */
export const packFloat8 = declarePack("pack.float8", "float8")
export const unpackFloat8 = declareUnpack("unpack.float8", "float8")
/** int8 codes -127..127, symmetric. */
export const packInt8 = declarePack("pack.int8", "int8")
export const unpackInt8 = declareUnpack("unpack.int8", "int8")

const toBfloat16 = round("bfloat16")

/** Rounds to bfloat16: to nearest, ties to even. */
export const packBfloat16 = defineKernel({
  name: "pack.bfloat16",
  signature: "inp[...] -> out[...]",
  outputDtypes: ["bfloat16"],
  flops: ({ rows }) => rows,
  reference: ([inp], [out], { rows }) => {
    for (let i = 0; i < rows; i++) out[i] = toBfloat16(inp[i]!)
  }
})

/** Widens bfloat16 to float32, exactly. */
export const unpackBfloat16 = defineKernel({
  name: "unpack.bfloat16",
  signature: "inp[...] -> out[...]",
  inputDtypes: ["bfloat16"],
  flops: () => 0,
  reference: ([inp], [out]) => out.set(inp)
})
