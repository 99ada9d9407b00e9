// How rows of a table of timed ops are read: which kind of measurement a row is, by which names its sizes go, and how much
// work it stands for. Knows no particular table and no device.
import { log } from "../elementary.ts"
import { kernelNamed } from "../kernels/catalogue.ts"
import { measureSizes, type Measure, type Sizes } from "../kernels/measure.ts"
import { dtypeBits, type Dtype } from "../machine/tensor.ts"
import type { OpCost } from "../profile.ts"

/** What a launch computes and moves: FLOP at 16 bits (at 32 bits each counts two), and bytes across memory. */
export interface Load {
  readonly flops16: number
  readonly bytes: number
}

/** A row of a table, understood. */
export interface MeasuredRow {
  /** Without the dtype that it may end in: "gemm" of "gemm_bf16". */
  readonly name: string
  readonly measure: Measure
  readonly sizes: Sizes
  /** Undefined where neither the row nor its name says. */
  readonly dtype: Dtype | undefined
  readonly load: Load
  readonly seconds: number
}

/** Names of rows that are no kernel's, and the kind that they measure. */
const genericNames: Readonly<Record<string, Measure>> = {
  gemm: "product",
  attention_decode: "decode_attention",
  attention_prefill: "prefill_attention",
  h2d_pinned: "h2d",
  d2h_pinned: "d2h"
}

const dtypeSuffixes: Readonly<Record<string, Dtype>> = {
  bf16: "bfloat16",
  fp16: "float16",
  fp32: "float32",
  fp8: "float8",
  fp4: "float4",
  int8: "int8"
}

const sizeAliases: Readonly<Record<string, string>> = {
  q_heads: "heads",
  kv_heads: "kvHeads",
  d: "headWidth"
}

/** Sizes that a row may leave out, and what they are then. */
const sizeDefaults: Sizes = { batch: 1 }

const isDtype = (name: string): name is Dtype => Object.hasOwn(dtypeBits, name)

/** "gemm_bf16" is a gemm in bfloat16. */
const splitName = (op: string): { readonly name: string; readonly dtype: Dtype | undefined } => {
  const match = /^(.*)_(\w+)$/u.exec(op)
  const suffix = match?.[2]
  if (suffix === undefined || !Object.hasOwn(dtypeSuffixes, suffix)) return { name: op, dtype: undefined }
  return { name: match![1]!, dtype: dtypeSuffixes[suffix] }
}

const product = (values: ReadonlyArray<number>): number => values.reduce((all, value) => all * value, 1)

/**
 * Work of one launch of the plain kernel of a kind, with operands of `bits` a number: what `Kernel.work` says of linear
 * layers without bias, attention over whole prompts, decoding of one token, copies.
 */
export const loadOf = (measure: Measure, sizes: Sizes, bits: number): Load => {
  const of = (name: string): number => sizes[name]!
  const flops16 = (flops: number): number => (flops * bits) / 16
  const bytesPer = bits / 8
  switch (measure) {
    case "product": {
      const [m, k, n] = [of("m"), of("k"), of("n")]
      return { flops16: flops16(2 * m * k * n), bytes: bytesPer * (m * k + k * n + m * n) }
    }
    case "decode_attention": {
      const queries = product([of("batch"), of("heads"), of("headWidth")])
      const cached = product([of("batch"), of("kv"), of("kvHeads"), of("headWidth")])
      return {
        flops16: flops16(4 * queries * of("kv")),
        bytes: bytesPer * (2 * queries + 2 * cached)
      }
    }
    case "prefill_attention": {
      const rows = of("batch") * of("tokens")
      const pairs = (rows * (of("tokens") + 1)) / 2
      const width = (2 * of("heads") + 2 * of("kvHeads")) * of("headWidth")
      return {
        flops16: flops16(4 * of("heads") * of("headWidth") * pairs),
        // Queries, keys, values and outputs, and each row's log-sum-exp.
        bytes: bytesPer * rows * width + 4 * rows * of("heads")
      }
    }
    case "copy":
      return { flops16: 0, bytes: 2 * of("bytes") }
    default:
      return { flops16: 0, bytes: of("bytes") }
  }
}

/** Sizes that tell apart the shapes of a kind; along the others times are interpolated by work. */
export const shapeOf = (measure: Measure, sizes: Sizes): ReadonlyArray<number> => {
  switch (measure) {
    case "product":
      return [sizes["k"]!, sizes["n"]!]
    case "decode_attention":
    case "prefill_attention":
      return [sizes["heads"]!, sizes["kvHeads"]!, sizes["headWidth"]!]
    default:
      return []
  }
}

const square = (x: number): number => x * x

const squared = (one: number, other: number): number => square(log(one / other))

/**
 * How unlike a launch is to rows of `shape`: the squared distance of the logarithms; 0 for the same shape. A product's weight
 * may be any two of its three extents in either order: with its sides exchanged it computes and moves as much.
 */
export const unlikeness = (measure: Measure, shape: ReadonlyArray<number>, sizes: Sizes): number => {
  if (measure !== "product") {
    const own = shapeOf(measure, sizes)
    return own.reduce((sum, value, i) => sum + squared(value, shape[i]!), 0)
  }
  const [m, k, n] = [sizes["m"]!, sizes["k"]!, sizes["n"]!]
  let least = Infinity
  for (const [a, b] of [
    [k, n],
    [m, k],
    [m, n]
  ] as const) {
    const straight = squared(a, shape[0]!) + squared(b, shape[1]!)
    const turned = squared(b, shape[0]!) + squared(a, shape[1]!)
    least = Math.min(least, straight, turned)
  }
  return least
}

/**
 * A row understood, or undefined where it is of no kind, lacks a size or has one that is not positive: an overlapped pair of
 * ops, say. Rows of a kernel of the catalogue go by its name.
 */
export const measuredRow = ({
  op,
  attributes,
  medianSeconds,
  dtype: stated
}: OpCost): MeasuredRow | undefined => {
  const split = splitName(op)
  const name = kernelNamed(op) === undefined ? split.name : op
  const kernel = kernelNamed(name)
  const measure = kernel?.measure ?? (Object.hasOwn(genericNames, name) ? genericNames[name] : undefined)
  if (measure === undefined || kernel?.kind === "collective") return undefined
  const named: Record<string, number> = { ...sizeDefaults }
  for (const [key, value] of Object.entries(attributes)) {
    named[Object.hasOwn(sizeAliases, key) ? sizeAliases[key]! : key] = value
  }
  const sizes: Record<string, number> = {}
  for (const key of measureSizes[measure]) {
    const value = named[key]
    if (value === undefined || !(value > 0)) return undefined
    sizes[key] = value
  }
  const dtype = stated !== undefined && isDtype(stated) ? stated : split.dtype
  const bits = dtypeBits[dtype ?? unsaidDtype]
  return { name, measure, sizes, dtype, load: loadOf(measure, sizes, bits), seconds: medianSeconds }
}

/** What a row is taken to be in that says nothing of its dtype. */
export const unsaidDtype: Dtype = "bfloat16"

/** The dtype a row was measured in, as far as it says. */
export const dtypeOfRow = ({ op, dtype }: Pick<OpCost, "op" | "dtype">): Dtype =>
  (dtype !== undefined && isDtype(dtype) ? dtype : splitName(op).dtype) ?? unsaidDtype
