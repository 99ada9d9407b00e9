// Rotary position embedding in the "rotate half" layout of Llama checkpoints: element i of a head is paired with element
// i + headWidth / 2 (not with its neighbour). Angle of pair i at position p: p * base^(-2 i / headWidth).
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, number } from "./kernel.ts"

const attributes = { headWidth: number(), base: number(10_000), offset: number(0) }

/** Rotates every head of every token by its position's angles; `direction` -1 undoes it. */
const rotate = (
  inp: TensorData,
  out: TensorData,
  [batch, time, heads]: readonly [number, number, number],
  { headWidth, base, offset }: { readonly headWidth: number; readonly base: number; readonly offset: number },
  direction: 1 | -1
): void => {
  const half = headWidth / 2
  for (let t = 0; t < time; t++) {
    for (let i = 0; i < half; i++) {
      const angle = (offset + t) * base ** ((-2 * i) / headWidth)
      const cosine = Math.cos(angle)
      const sine = direction * Math.sin(angle)
      for (let b = 0; b < batch; b++) {
        for (let h = 0; h < heads; h++) {
          const first = ((b * time + t) * heads + h) * headWidth + i
          const x = inp[first]!
          const y = inp[first + half]!
          out[first] = x * cosine - y * sine
          out[first + half] = y * cosine + x * sine
        }
      }
    }
  }
}

const extents = ({ headWidth }: { readonly headWidth: number }) => {
  if (headWidth % 2 !== 0) throw new RangeError(`rope: headWidth is ${headWidth}; expected an even number`)
  return { headWidth }
}

/** inp is all heads of all tokens, [batch, time, heads * headWidth]; token t stands at position offset + t. */
export const ropeForward = defineKernel({
  name: "rope.forward",
  signature: "inp[batch, time, headWidth*heads] -> out[batch, time, headWidth*heads]",
  attributes,
  scalars: ["offset"],
  extents,
  flops: (_, [inp]) => 3 * inp.elements,
  reference: ([inp], [out], { a, dim }) => rotate(inp, out, [dim("batch"), dim("time"), dim("heads")], a, 1)
})

/** A rotation's gradient is the rotation back. */
export const ropeBackward = defineKernel({
  name: "rope.backward",
  signature: "dout[batch, time, headWidth*heads] -> dinp[batch, time, headWidth*heads]",
  attributes,
  scalars: ["offset"],
  extents,
  flops: (_, [dout]) => 3 * dout.elements,
  reference: ([dout], [dinp], { a, dim }) =>
    rotate(dout, dinp, [dim("batch"), dim("time"), dim("heads")], a, -1)
})

/** Decoding: one token of each sequence, each at its own position. */
export const ropeRows = defineKernel({
  name: "rope.rows",
  signature: "inp[batch, headWidth*heads], positions[batch] -> out[batch, headWidth*heads]",
  attributes: { headWidth: attributes.headWidth, base: attributes.base },
  inputDtypes: [undefined, "int32"],
  extents,
  flops: (_, [inp]) => 3 * inp.elements,
  reference: ([inp, positions], [out], { a, dim }) => {
    const width = dim("heads") * a.headWidth
    for (let row = 0; row < dim("batch"); row++) {
      const at = [row * width, (row + 1) * width] as const
      const offset = positions[row]!
      rotate(inp.subarray(...at), out.subarray(...at), [1, 1, dim("heads")], { ...a, offset }, 1)
    }
  }
})
