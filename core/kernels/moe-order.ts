// Order and I-Order of an expert-parallel MoE layer: tokens into the rows that are sent to experts, which lie as moe-layout.ts says,
// and back. A row is a token's (`tokens`) weighted by an entry of the gate's weights (`assignments`); rows that no token takes are
// -1 in both, and zero.
import type { TensorData } from "../machine/tensor.ts"
import {
  attributeResolver,
  defineKernel,
  number,
  text,
  totalBytes,
  type Kernel,
  type Shape
} from "./kernel.ts"
import { chunkStart } from "./moe-layout.ts"
import { printShape } from "./signature.ts"

/** Rows of each tensor, "12,12,8". */
const parseRows = (name: string, rows: string): ReadonlyArray<number> =>
  rows.split(",").map((part) => {
    if (!/^\d+$/.test(part))
      throw new RangeError(`${name}: rows "${rows}"; expected whole numbers like "12,12,8"`)
    return Number(part)
  })

const refuse = (name: string, index: number, what: string, shape: Shape | undefined, expected: string) =>
  new RangeError(
    `${name}: input ${index} (${what}) has shape ${shape === undefined ? "none" : printShape(shape)}; expected ${expected}`
  )

/** Checks that tensors of rows from input `from` on hold `count` rows of one width, and returns the width. */
const widthOf = (name: string, inputs: ReadonlyArray<Shape>, from: number, count: number): number => {
  const width = inputs[from]?.[1]
  if (width === undefined) throw refuse(name, from, "rows", inputs[from], "[rows, width]")
  let rows = 0
  for (let i = from; i < inputs.length; i++) {
    const shape = inputs[i]!
    if (shape.length !== 2 || shape[1] !== width) throw refuse(name, i, "rows", shape, `[rows, ${width}]`)
    rows += shape[0]!
  }
  if (rows !== count)
    throw refuse(name, from, "rows", inputs[from], `${count} rows over all tensors, not ${rows}`)
  return width
}

const vector = (name: string, inputs: ReadonlyArray<Shape>, index: number, what: string, extent?: number) => {
  const shape = inputs[index]
  if (shape?.length !== 1 || (extent !== undefined && shape[0] !== extent)) {
    throw refuse(name, index, what, shape, `[${extent ?? "rows"}]`)
  }
  return shape[0]!
}

const matrix = (name: string, inputs: ReadonlyArray<Shape>, index: number, what: string) => {
  const shape = inputs[index]
  if (shape?.length !== 2) throw refuse(name, index, what, shape, "two extents")
  return [shape[0]!, shape[1]!] as const
}

const splitRows = (name: string, rows: string, count: number, width: number): ReadonlyArray<Shape> => {
  const parts = parseRows(name, rows)
  const total = parts.reduce((sum, part) => sum + part, 0)
  if (total !== count) throw new RangeError(`${name}: rows "${rows}" are ${total}; expected ${count}`)
  return parts.map((part) => [part, width])
}

/** Calls `visit(row, data, at)` for every row of tensors that follow each other; `at` is the row's first element. */
const eachRow = (
  tensors: ReadonlyArray<TensorData>,
  width: number,
  visit: (row: number, data: TensorData, at: number) => void
): void => {
  let row = 0
  for (const data of tensors) for (let at = 0; at < data.length; at += width) visit(row++, data, at)
}

/** Width of rows in tensors that hold `rows` of them; 1 where there are none, for nothing is then done. */
const widthIn = (tensors: ReadonlyArray<TensorData>, rows: number): number => {
  let elements = 0
  for (const data of tensors) elements += data.length
  return rows === 0 ? 1 : elements / rows
}

const rowsAttribute = { rows: text() }

/** out[row] = inp[tokens[row]], 0 where that is -1; the rows over as many tensors as `rows` names. */
export const moeOrderForward = defineKernel({
  name: "moe_order.forward",
  signature: "inp[inputs, width], tokens[rows] -> out[part, width] (as many as attribute rows names)",
  attributes: rowsAttribute,
  inputDtypes: [undefined, "int32"],
  shapes: (inputs, { rows }) => {
    const [, width] = matrix("moe_order.forward", inputs, 0, "inp")
    return splitRows("moe_order.forward", rows, vector("moe_order.forward", inputs, 1, "tokens"), width)
  },
  flops: () => 0,
  reference: ([inp, tokens], outputs) => {
    const width = widthIn(outputs, tokens.length)
    eachRow(outputs, width, (row, out, at) => {
      const from = tokens[row]! * width
      for (let c = 0; c < width; c++) out[at + c] = from < 0 ? 0 : inp[from + c]!
    })
  }
})

/** dinp[token] = sum of dout over its rows. */
export const moeOrderBackward = defineKernel({
  name: "moe_order.backward",
  signature: "tokens[rows], dout[part, width] (one or more) -> dinp[inputs, width]",
  attributes: { inputs: number() },
  inputDtypes: ["int32"],
  shapes: (inputs, a) => {
    const rows = vector("moe_order.backward", inputs, 0, "tokens")
    return [[a.inputs, widthOf("moe_order.backward", inputs, 1, rows)]]
  },
  flops: (_call, inputs) => inputs.slice(1).reduce((sum, { elements }) => sum + elements, 0),
  reference: ([tokens, ...douts], [dinp], { a }) => {
    const width = dinp.length / Math.max(1, a.inputs)
    const sum = new Float64Array(dinp.length)
    eachRow(douts, width, (row, dout, at) => {
      const to = tokens[row]! * width
      if (to >= 0) for (let c = 0; c < width; c++) sum[to + c]! += dout[at + c]!
    })
    dinp.set(sum)
  }
})

/** out[token] = sum over its rows of weights[assignments[row]] * inp[row]. */
export const moeInverseOrderForward = defineKernel({
  name: "moe_inverse_order.forward",
  signature:
    "weights[...], tokens[rows], assignments[rows], inp[part, width] (one or more) -> out[outputs, width]",
  attributes: { outputs: number() },
  inputDtypes: [undefined, "int32", "int32"],
  shapes: (inputs, { outputs }) => {
    const name = "moe_inverse_order.forward"
    const rows = vector(name, inputs, 1, "tokens")
    vector(name, inputs, 2, "assignments", rows)
    return [[outputs, widthOf(name, inputs, 3, rows)]]
  },
  flops: (_call, inputs) => 2 * inputs.slice(3).reduce((sum, { elements }) => sum + elements, 0),
  reference: ([weights, tokens, assignments, ...rows], [out], { a }) => {
    const width = out.length / Math.max(1, a.outputs)
    const sum = new Float64Array(out.length)
    eachRow(rows, width, (row, inp, at) => {
      const to = tokens[row]! * width
      if (to < 0) return
      const weight = weights[assignments[row]!]!
      for (let c = 0; c < width; c++) sum[to + c]! += weight * inp[at + c]!
    })
    out.set(sum)
  }
})

/** dinp[row] = weights[assignments[row]] * dout[tokens[row]]. */
export const moeInverseOrderBackwardInput = defineKernel({
  name: "moe_inverse_order.backward_input",
  signature:
    "dout[outputs, width], weights[...], tokens[rows], assignments[rows]" +
    " -> dinp[part, width] (as many as attribute rows names)",
  attributes: rowsAttribute,
  inputDtypes: [undefined, undefined, "int32", "int32"],
  shapes: (inputs, { rows }) => {
    const name = "moe_inverse_order.backward_input"
    const [, width] = matrix(name, inputs, 0, "dout")
    const count = vector(name, inputs, 2, "tokens")
    vector(name, inputs, 3, "assignments", count)
    return splitRows(name, rows, count, width)
  },
  flops: (_call, _inputs, outputs) => outputs.reduce((sum, { elements }) => sum + elements, 0),
  reference: ([dout, weights, tokens, assignments], outputs) => {
    const width = widthIn(outputs, tokens.length)
    eachRow(outputs, width, (row, dinp, at) => {
      const from = tokens[row]! * width
      const weight = from < 0 ? 0 : weights[assignments[row]!]!
      for (let c = 0; c < width; c++) dinp[at + c] = from < 0 ? 0 : weight * dout[from + c]!
    })
  }
})

/** dweights[assignments[row]] = dout[tokens[row]] . inp[row]; 0 for choices that were dropped. */
export const moeInverseOrderBackwardGate = defineKernel({
  name: "moe_inverse_order.backward_gate",
  signature:
    "dout[outputs, width], weights[...], tokens[rows], assignments[rows], inp[part, width] (one or more) -> dweights[...]",
  inputDtypes: [undefined, undefined, "int32", "int32"],
  shapes: (inputs) => {
    const name = "moe_inverse_order.backward_gate"
    const [, width] = matrix(name, inputs, 0, "dout")
    const weights = inputs[1]
    if (weights === undefined) throw refuse(name, 1, "weights", weights, "the gate's weights")
    const rows = vector(name, inputs, 2, "tokens")
    vector(name, inputs, 3, "assignments", rows)
    const own = widthOf(name, inputs, 4, rows)
    if (own !== width) throw refuse(name, 4, "inp", inputs[4], `[rows, ${width}]`)
    return [weights]
  },
  flops: (_call, inputs) => 2 * inputs.slice(4).reduce((sum, { elements }) => sum + elements, 0),
  reference: ([dout, , tokens, assignments, ...rows], [dweights]) => {
    const width = widthIn(rows, tokens.length)
    dweights.fill(0)
    eachRow(rows, width, (row, inp, at) => {
      const from = tokens[row]! * width
      if (from < 0) return
      let sum = 0
      for (let c = 0; c < width; c++) sum += dout[from + c]! * inp[at + c]!
      dweights[assignments[row]!] = sum
    })
  }
})

/** SoftMoE's Order: out[row] = sum over tokens of mix[token, columns[row]] * inp[token]. Also the gradient of its I-Order. */
export const softOrderForward = defineKernel({
  name: "soft_order.forward",
  signature:
    "inp[inputs, width], mix[inputs, slots], columns[rows] -> out[part, width] (as many as attribute rows names)",
  attributes: rowsAttribute,
  inputDtypes: [undefined, undefined, "int32"],
  shapes: (inputs, { rows }) => {
    const name = "soft_order.forward"
    const [tokens, width] = matrix(name, inputs, 0, "inp")
    if (matrix(name, inputs, 1, "mix")[0] !== tokens) {
      throw refuse(name, 1, "mix", inputs[1], `[${tokens}, slots]`)
    }
    return splitRows(name, rows, vector(name, inputs, 2, "columns"), width)
  },
  flops: (_call, [inp, , columns]) => 2 * inp.elements * columns.elements,
  reference: ([inp, mix, columns], outputs) => {
    const width = widthIn(outputs, columns.length)
    const tokens = inp.length / width
    const slots = mix.length / tokens
    eachRow(outputs, width, (row, out, at) => {
      for (let c = 0; c < width; c++) {
        let sum = 0
        for (let t = 0; t < tokens; t++) sum += mix[t * slots + columns[row]!]! * inp[t * width + c]!
        out[at + c] = sum
      }
    })
  }
})

/** SoftMoE's I-Order: out[token] = sum over rows of mix[token, columns[row]] * inp[row]. Also the gradient of its Order. */
export const softInverseOrderForward = defineKernel({
  name: "soft_inverse_order.forward",
  signature: "mix[outputs, slots], columns[rows], inp[part, width] (one or more) -> out[outputs, width]",
  inputDtypes: [undefined, "int32"],
  shapes: (inputs) => {
    const name = "soft_inverse_order.forward"
    const [outputs] = matrix(name, inputs, 0, "mix")
    return [[outputs, widthOf(name, inputs, 2, vector(name, inputs, 1, "columns"))]]
  },
  flops: (_call, [, columns], [out]) => 2 * out.elements * columns.elements,
  reference: ([mix, columns, ...rows], [out]) => {
    const width = widthIn(rows, columns.length)
    const tokens = out.length / width
    const slots = mix.length / tokens
    const sum = new Float64Array(out.length)
    eachRow(rows, width, (row, inp, at) => {
      for (let t = 0; t < tokens; t++) {
        const weight = mix[t * slots + columns[row]!]!
        for (let c = 0; c < width; c++) sum[t * width + c]! += weight * inp[at + c]!
      }
    })
    out.set(sum)
  }
})

/** dmix[token, columns[row]] = side[token] . rows[row]: side is the Order's input, or the gradient of the I-Order's output. */
export const softOrderBackwardMix = defineKernel({
  name: "soft_order.backward_mix",
  signature:
    "side[inputs, width], mix[inputs, slots], columns[rows], rows[part, width] (one or more) -> dmix[inputs, slots]",
  inputDtypes: [undefined, undefined, "int32"],
  shapes: (inputs) => {
    const name = "soft_order.backward_mix"
    const [tokens, width] = matrix(name, inputs, 0, "side")
    const mix = matrix(name, inputs, 1, "mix")
    if (mix[0] !== tokens) throw refuse(name, 1, "mix", inputs[1], `[${tokens}, slots]`)
    if (widthOf(name, inputs, 3, vector(name, inputs, 2, "columns")) !== width) {
      throw refuse(name, 3, "rows", inputs[3], `[rows, ${width}]`)
    }
    return [[...mix]]
  },
  flops: (_call, [side, , columns]) => 2 * side.elements * columns.elements,
  reference: ([side, mix, columns, ...rows], [dmix]) => {
    const width = widthIn(rows, columns.length)
    const tokens = side.length / width
    const slots = mix.length / tokens
    dmix.fill(0)
    eachRow(rows, width, (row, data, at) => {
      for (let t = 0; t < tokens; t++) {
        let sum = 0
        for (let c = 0; c < width; c++) sum += side[t * width + c]! * data[at + c]!
        dmix[t * slots + columns[row]!] = sum
      }
    })
  }
})

/**
 * The same rows cut into another number of pipeline chunks: what the backward pass needs of the forward pass's chunks when
 * their degrees differ. `blocks` are the rows of one expert by the rank they came from ("12,9,12"); a chunk holds its share
 * of each block.
 */
export const moeRechunk = defineKernel({
  name: "moe_rechunk",
  signature: "inp[part, width] (one or more) -> out[part, width] (as many as attribute chunks says)",
  attributes: { blocks: text(), chunks: number() },
  shapes: (inputs, { blocks, chunks }) => {
    const counts = parseRows("moe_rechunk", blocks)
    const width = widthOf(
      "moe_rechunk",
      inputs,
      0,
      counts.reduce((sum, count) => sum + count, 0)
    )
    return Array.from({ length: chunks }, (_, chunk) => [
      counts.reduce(
        (sum, count) => sum + chunkStart(count, chunk + 1, chunks) - chunkStart(count, chunk, chunks),
        0
      ),
      width
    ])
  },
  flops: () => 0,
  reference: (inputs, outputs, { a }) => {
    const counts = parseRows("moe_rechunk", a.blocks)
    const total = counts.reduce((sum, count) => sum + count, 0)
    const width = widthIn(inputs, total)
    // Both sides list the same rows, (chunk, block, position), each in its own cut.
    const places = (chunks: number): ReadonlyArray<readonly [block: number, position: number]> =>
      Array.from({ length: chunks }, (_, chunk) => chunk).flatMap((chunk) =>
        counts.flatMap((count, block) => {
          const start = chunkStart(count, chunk, chunks)
          const rows = chunkStart(count, chunk + 1, chunks) - start
          return Array.from({ length: rows }, (_, i) => [block, start + i] as const)
        })
      )
    const from = places(inputs.length)
    const rowOf = counts.map((count) => new Int32Array(count))
    places(a.chunks).forEach(([block, position], row) => (rowOf[block]![position] = row))
    const all = new Float64Array(total * width)
    eachRow(inputs, width, (row, data, at) => {
      const [block, position] = from[row]!
      all.set(data.subarray(at, at + width), rowOf[block]![position]! * width)
    })
    eachRow(outputs, width, (row, data, at) => data.set(all.subarray(row * width, (row + 1) * width), at))
  }
})

const noAttributes = attributeResolver("repack", {})

/**
 * The values of all inputs, in order, laid out over all outputs, in order: gradients into the messages they travel in, and
 * back. Shapes of the outputs are the caller's choice; the elements must add up.
 */
export const repack: Kernel<"repack"> = {
  name: "repack",
  kind: "compute",
  signature: "inp[...] (one or more) -> out[...] (one or more, as many elements)",
  attributes: {},
  scalars: [],
  costFollowsScalars: false,
  inputDtypes: [],
  outputDtypes: [],
  shapes: (_inputs, attributes) => {
    noAttributes(attributes)
    return undefined
  },
  work: (inputs, outputs) => ({
    flops: 0,
    readBytes: totalBytes(inputs),
    writtenBytes: totalBytes(outputs)
  }),
  measure: "traffic",
  sizes: (inputs, outputs) => ({ bytes: totalBytes(inputs) + totalBytes(outputs) }),
  reference: (inputs, outputs) => {
    const all = inputs.flatMap((data) => Array.from(data))
    const wanted = outputs.reduce((sum, data) => sum + data.length, 0)
    if (all.length !== wanted) throw new RangeError(`repack: ${all.length} values into ${wanted}`)
    let at = 0
    for (const data of outputs) {
      for (let i = 0; i < data.length; i++) data[i] = all[at++]!
    }
  }
}
