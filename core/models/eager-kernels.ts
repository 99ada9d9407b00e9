// What PyTorch in eager mode runs for a call of a layer graph, where it is not one kernel: the elementwise kernels and reductions
// of Hugging Face's modules and of their backward passes, each with the bytes that it reads and writes. Counted from the modules'
// code and autograd's formulas, not fitted to a time. Knows shapes alone. What autograd keeps of them is eager-memory.ts's.
import type { EagerPrecision } from "./eager-memory.ts"
import type { KernelCall } from "./layer-graph.ts"
import type { KernelName } from "../kernels/catalogue.ts"

/** Of a call: whether its own kernel runs (products, attention, embeddings), and what each other one moves, bytes. */
interface EagerKernels {
  readonly itself: boolean
  readonly moved: ReadonlyArray<number>
}

const wide = 4
const narrow = 2

/** Bytes of each kernel for each element of what it runs over. */
type PerElement = ReadonlyArray<number>

/** A kernel that reads operands of these bytes an element and writes one. */
const moves = (...bytes: ReadonlyArray<number>): number => bytes.reduce((sum, one) => sum + one, 0)

const toWide = moves(narrow, wide)
const toNarrow = moves(wide, narrow)
const unaryWide = moves(wide, wide)
const binaryWide = moves(wide, wide, wide)
const unaryNarrow = moves(narrow, narrow)
const binaryNarrow = moves(narrow, narrow, narrow)

/** x.float(), its square, the mean, times rsqrt, back, times the weight. */
const rmsNorm = (autocast: boolean): PerElement =>
  autocast
    ? [unaryWide, wide, unaryWide, unaryWide]
    : [toWide, unaryWide, wide, unaryWide, toNarrow, unaryNarrow]

/**
 * In order: of the product with the weight; back to float32; of the product with rsqrt, both ways, and its sum over a row; of the
 * mean and of the square (a copy, twice it, times the gradient); the sum of both ways; back.
 */
const rmsNormBackward = (autocast: boolean): PerElement => [
  ...(autocast ? [unaryWide] : [unaryNarrow, toWide]),
  unaryWide,
  binaryWide,
  wide,
  wide,
  unaryWide,
  unaryWide,
  binaryWide,
  binaryWide,
  ...(autocast ? [] : [toNarrow])
]

/** x * cos + cat(-x2, x1) * sin; under autocast the tables are float32, and so is what comes out, until attention narrows it. */
const rope = (autocast: boolean): PerElement =>
  autocast
    ? [moves(narrow, wide), narrow, unaryNarrow, moves(narrow, wide), binaryWide, toNarrow]
    : [unaryNarrow, narrow, unaryNarrow, unaryNarrow, binaryNarrow]

/** Both products; the negation; of the two halves zeros that a half is copied into, and their sum; the sum of both ways. */
const ropeBackward = (autocast: boolean): PerElement => [
  ...(autocast ? [toWide, unaryWide, toNarrow, unaryWide, toNarrow] : [unaryNarrow, unaryNarrow]),
  narrow,
  narrow,
  narrow,
  narrow,
  narrow,
  binaryNarrow,
  binaryNarrow
]

/** 0.5 x (1 + tanh(c (x + 0.044715 x^3))) in Python; autocast takes the power in float32, and all after it. */
const gelu = (autocast: boolean): PerElement =>
  autocast
    ? [
        toWide,
        unaryWide,
        unaryWide,
        moves(narrow, wide, wide),
        unaryWide,
        unaryWide,
        unaryWide,
        unaryNarrow,
        moves(narrow, wide, wide),
        toNarrow
      ]
    : [
        unaryNarrow,
        unaryNarrow,
        binaryNarrow,
        unaryNarrow,
        unaryNarrow,
        unaryNarrow,
        unaryNarrow,
        binaryNarrow
      ]

const geluBackward = (autocast: boolean): PerElement =>
  autocast
    ? [
        toWide,
        binaryWide,
        moves(narrow, wide, wide),
        toNarrow,
        unaryNarrow,
        binaryWide,
        unaryWide,
        toNarrow,
        unaryWide,
        unaryWide,
        unaryWide,
        binaryWide,
        toNarrow,
        binaryNarrow,
        binaryNarrow
      ]
    : [
        binaryNarrow,
        binaryNarrow,
        unaryNarrow,
        binaryNarrow,
        unaryNarrow,
        unaryNarrow,
        unaryNarrow,
        unaryNarrow,
        binaryNarrow,
        binaryNarrow,
        binaryNarrow
      ]

/** What runs for the call, or undefined for a kernel that nobody counted. */
export const eagerKernels = (
  { kernel, inputs, outputs, attributes }: KernelCall,
  precision: EagerPrecision
): EagerKernels | undefined => {
  const autocast = precision === "autocast"
  const stream = autocast ? wide : narrow
  const elements = (index: number): number => inputs[index]!.elements
  const over = (count: number, perElement: PerElement): ReadonlyArray<number> =>
    perElement.map((bytes) => bytes * count)
  const instead = (count: number, perElement: PerElement): EagerKernels => ({
    itself: false,
    moved: over(count, perElement)
  })
  const beside = (...moved: ReadonlyArray<ReadonlyArray<number>>): EagerKernels => ({
    itself: true,
    moved: moved.flat()
  })
  const x = elements(0)
  // Autocast copies each weight once a pass, and float32 activations for each product that reads them.
  const copies = (count: number, bytes: number): ReadonlyArray<number> => (autocast ? [count * bytes] : [])
  switch (kernel as KernelName) {
    case "rms_norm.forward":
      return instead(x, rmsNorm(autocast))
    case "rms_norm.backward_input":
      return instead(x, rmsNormBackward(autocast))
    case "rms_norm.backward_weight":
      return instead(x, autocast ? [binaryWide, wide] : [binaryNarrow, narrow])
    // One kernel each in PyTorch too.
    case "layer_norm.forward":
      return instead(x, [2 * stream])
    case "layer_norm.backward_input":
      return instead(x, [3 * stream])
    case "layer_norm.backward_weight":
      return instead(x, [2 * stream])
    case "rope.forward":
      return instead(x, rope(autocast))
    case "rope.backward":
      return instead(x, ropeBackward(autocast))
    case "swiglu.forward":
      return instead(x, [unaryNarrow, binaryNarrow])
    case "swiglu.backward":
      return instead(x, [binaryNarrow, binaryNarrow, binaryNarrow])
    case "gelu.forward":
      return instead(x, gelu(autocast))
    case "gelu.backward":
      return instead(x, geluBackward(autocast))
    case "residual.forward":
      return instead(x, [stream + narrow + stream])
    case "position_add.forward":
    case "add":
      return instead(x, [3 * stream])
    case "position_add.backward_weight":
      return instead(x, [stream])
    case "softmax_cross_entropy.forward":
      return instead(x, [toWide, unaryWide])
    // The gradient of the chosen, through the softmax, and back.
    case "softmax_cross_entropy.backward":
      return instead(x, [wide, binaryWide, toNarrow])
    case "embedding.forward":
    case "embedding.backward_weight":
      return beside()
    case "linear.forward":
      return beside(copies(x, toNarrow), copies(elements(1), toNarrow))
    case "linear.backward_input":
      return beside(copies(outputs[0]!.elements, toWide))
    // The weight's gradient back to float32, and the sum over rows for the bias.
    case "linear.backward_weight":
      return beside(copies(outputs[0]!.elements, toWide), outputs.length > 1 ? [narrow * elements(0)] : [])
    case "attention.forward": {
      // Heads back beside one another; keys and values repeated for the queries that share them.
      const out = outputs[0]!.elements
      return beside([unaryNarrow * out], repeated(attributes, inputs.length, elements, out))
    }
    case "attention.backward": {
      const out = elements(0)
      return beside(
        over(out, [unaryNarrow, unaryNarrow, unaryNarrow]),
        // Of packed queries, keys and values: put together again.
        inputs.length === 4 ? [unaryNarrow * elements(1)] : [],
        inputs.length === 4 ? [] : repeated(attributes, 3, (index) => elements(index + 1), out)
      )
    }
    default:
      return undefined
  }
}

/** Keys and values copied to as many heads as queries have, or their gradients summed over them. */
const repeated = (
  { heads, kvHeads }: KernelCall["attributes"],
  operands: number,
  elements: (index: number) => number,
  out: number
): ReadonlyArray<number> =>
  operands !== 3 || heads === kvHeads ? [] : [1, 2].map((index) => narrow * (elements(index) + out))
