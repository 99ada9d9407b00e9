// Moving rows between tensors: sequences come and go from a decoding batch, and only the last token of a prompt is asked for
// the next one.
import { parseIntegers } from "./integer-list.ts"
import { defineKernel, number, text } from "./kernel.ts"
import { printShape } from "./signature.ts"

/** The inputs' rows, one tensor after the other; rows left over in `rows` are 0, a batch's padding. */
export const concatRows = defineKernel({
  name: "concat_rows",
  signature: "inp[n, ...] (one or more) -> out[rows, ...]",
  attributes: { rows: number() },
  shapes: ([first, ...others], { rows }) => {
    if (first === undefined) throw new RangeError("concat_rows: no inputs")
    const [extent, ...rest] = first
    let total = extent ?? 0
    for (const shape of others) {
      total += shape[0] ?? 0
      if (shape.length !== first.length || rest.some((size, i) => size !== shape[i + 1]))
        throw new RangeError(`concat_rows: ${printShape(shape)} does not go with ${printShape(first)}`)
    }
    if (extent === undefined || total > rows) throw new RangeError(`concat_rows: ${total} rows into ${rows}`)
    return [[rows, ...rest]]
  },
  flops: () => 0,
  reference: (inputs, [out]) => {
    out.fill(0)
    let at = 0
    for (const data of inputs) {
      out.set(data, at)
      at += data.length
    }
  }
})

/** The first rows of a tensor, dealt out: `counts[i]` of them to output i. */
export const splitRows = defineKernel({
  name: "split_rows",
  signature: "inp[rows, ...] -> out[n, ...] (one or more)",
  attributes: {
    /** "1,1,3": rows of each output. */
    counts: text()
  },
  shapes: ([inp, ...others], { counts }) => {
    const [rows, ...rest] = inp ?? []
    if (rows === undefined || others.length > 0)
      throw new RangeError("split_rows: expected one input with rows")
    const sizes = parseIntegers("split_rows", "counts", counts)
    const total = sizes.reduce((sum, size) => sum + size, 0)
    if (total > rows) throw new RangeError(`split_rows: ${total} rows of ${rows}`)
    return sizes.map((size) => [size, ...rest])
  },
  flops: () => 0,
  readBytes: (_, __, outputs) => outputs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  reference: ([inp], outputs) => {
    let at = 0
    for (const data of outputs) {
      data.set(inp.subarray(at, at + data.length))
      at += data.length
    }
  }
})

/** out[b] = inp[b, time - 1]: of a prompt's tokens only the last is asked for the next one. */
export const lastToken = defineKernel({
  name: "last_token",
  signature: "inp[batch, time, width] -> out[batch, width]",
  flops: () => 0,
  readBytes: (_, __, [out]) => out.sizeBytes,
  reference: ([inp], [out], { dim }) => {
    const [batch, time, width] = [dim("batch"), dim("time"), dim("width")]
    for (let b = 0; b < batch; b++)
      out.set(inp.subarray(((b + 1) * time - 1) * width, (b + 1) * time * width), b * width)
  }
})

/** out = index of the largest of each row, ties to the lower index: greedy choice of the next token. */
export const argmax = defineKernel({
  name: "argmax",
  signature: "inp[..., width] -> out[...]",
  outputDtypes: ["int32"],
  taken: (choice, _, { dim }) => Array.from(choice, (column, row) => row * dim("width") + column),
  flops: ({ rows, dim }) => rows * dim("width"),
  reference: ([inp], [out], { rows, dim }) => {
    const width = dim("width")
    for (let row = 0; row < rows; row++) {
      let best = 0
      for (let c = 1; c < width; c++) if (inp[row * width + c]! > inp[row * width + best]!) best = c
      out[row] = best
    }
  }
})
