// Softmax over the last axis, and the mean cross-entropy of logits against target classes. Fused into one launch,
// in place if wished, as llm.c's fused classifier: core/kernels/fused.ts.
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, flag, number, type Call } from "./kernel.ts"

/** probs = exp(inp - max) / sum. */
export const softmaxForward = defineKernel({
  name: "softmax.forward",
  signature: "inp[..., width] -> probs[..., width]",
  flops: ({ rows, dim }) => 5 * rows * dim("width"),
  reference: ([inp], [probs], { rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      const [max, sum] = softmaxScale(inp, at, width)
      for (let c = 0; c < width; c++) probs[at + c] = Math.exp(inp[at + c]! - max) / sum
    }
  }
})

/** dinp = probs * (dout - sum(dout * probs)). */
export const softmaxBackward = defineKernel({
  name: "softmax.backward",
  signature: "dout[..., width], probs[..., width] -> dinp[..., width]",
  flops: ({ rows, dim }) => 4 * rows * dim("width"),
  reference: ([dout, probs], [dinp], { rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      const at = row * width
      let mean = 0
      for (let c = 0; c < width; c++) mean += dout[at + c]! * probs[at + c]!
      for (let c = 0; c < width; c++) dinp[at + c] = probs[at + c]! * (dout[at + c]! - mean)
    }
  }
})

/** Largest element of a row, and the sum of exp(element - largest). */
const softmaxScale = (inp: TensorData, at: number, width: number): readonly [max: number, sum: number] => {
  let max = -Infinity
  for (let c = 0; c < width; c++) max = Math.max(max, inp[at + c]!)
  let sum = 0
  for (let c = 0; c < width; c++) sum += Math.exp(inp[at + c]! - max)
  return [max, sum]
}

const attributes = {
  /** Targets with this class do not count, as torch.nn.functional.cross_entropy's ignore_index. */
  ignoreIndex: number(-100),
  /**
   * How many of the logits are classes; 0: all. Those behind only pad the vocabulary to a size that products are fast at:
   * no probability, no gradient.
   */
  classes: number(0)
}

interface Rows {
  readonly rows: number
  /** Logits of a row, padding included. */
  readonly width: number
  readonly classes: number
}

const rowsOf = ({ a, rows, dim }: Call<typeof attributes>): Rows => {
  const width = dim("vocabulary")
  if (!(Number.isInteger(a.classes) && a.classes >= 0 && a.classes <= width))
    throw new RangeError(`softmax_cross_entropy: ${a.classes} classes of ${width} logits`)
  return { rows, width, classes: a.classes === 0 ? width : a.classes }
}

/** Rows that count; throws RangeError for a class outside the vocabulary. */
const countedRows = (targets: TensorData, rows: number, vocabulary: number, ignoreIndex: number): number => {
  let counted = 0
  for (let row = 0; row < rows; row++) {
    const target = targets[row]!
    if (target === ignoreIndex) continue
    if (!(target >= 0 && target < vocabulary)) {
      throw new RangeError(`softmax_cross_entropy: target ${target} outside the vocabulary of ${vocabulary}`)
    }
    counted++
  }
  return counted
}

/** Mean loss; with `dlogits`, also its gradient times `scale`. One pass, so that dlogits may be the logits' own array. */
const crossEntropy = (
  logits: TensorData,
  targets: TensorData,
  dlogits: TensorData | undefined,
  { rows, width, classes }: Rows,
  { ignoreIndex, scale }: { readonly ignoreIndex: number; readonly scale: number }
): number => {
  const counted = countedRows(targets, rows, classes, ignoreIndex)
  let loss = 0
  for (let row = 0; row < rows; row++) {
    const at = row * width
    const target = targets[row]!
    if (target === ignoreIndex) {
      dlogits?.fill(0, at, at + width)
      continue
    }
    const [max, sum] = softmaxScale(logits, at, classes)
    loss += max + Math.log(sum) - logits[at + target]!
    if (dlogits === undefined) continue
    dlogits.fill(0, at + classes, at + width)
    for (let c = 0; c < classes; c++) {
      const probability = Math.exp(logits[at + c]! - max) / sum
      dlogits[at + c] = ((probability - (c === target ? 1 : 0)) * scale) / counted
    }
  }
  return loss / counted
}

/** loss = mean over counted rows of log(sum(exp(logits))) - logits[target]; NaN when no row counts, as PyTorch. */
export const softmaxCrossEntropyForward = defineKernel({
  name: "softmax_cross_entropy.forward",
  signature: "logits[..., vocabulary], targets[...] -> loss[]",
  attributes,
  inputDtypes: [undefined, "int32"],
  flops: ({ rows, dim }) => 4 * rows * dim("vocabulary"),
  reference: ([logits, targets], [loss], call) => {
    loss[0] = crossEntropy(logits, targets, undefined, rowsOf(call), { ...call.a, scale: 1 })
  }
})

/**
 * dlogits = scale * (softmax(logits) - onehot(target)) / counted rows; zero where the target is ignored. With `scaled` also times
 * the first of `scaling`, which `loss_scale` has.
 */
export const softmaxCrossEntropyBackward = defineKernel({
  name: "softmax_cross_entropy.backward",
  signature: "logits[..., vocabulary], targets[...], scaling[4]?scaled -> dlogits[..., vocabulary]",
  attributes: { ...attributes, scale: number(1), scaled: flag(false) },
  inputDtypes: [undefined, "int32", "float32"],
  flops: ({ rows, dim }) => 6 * rows * dim("vocabulary"),
  reference: ([logits, targets, scaling], [dlogits], call) => {
    const { ignoreIndex, scale, scaled } = call.a
    const by = scaled ? scale * scaling[0]! : scale
    crossEntropy(logits, targets, dlogits, rowsOf(call), { ignoreIndex, scale: by })
  }
})
