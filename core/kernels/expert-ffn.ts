// One expert's feed-forward layer over its own rows of the dispatched tokens. Where all experts lie in device memory,
// grouped_linear computes them at once; where they come and go, each is a launch of its own, as soon as it is there.
import { defineKernel, flag, number } from "./kernel.ts"

/**
 * For rows first .. first + count - 1: out = down act(up inp). `gated`: up is gate and up projection of SwiGLU, gate first
 * (Mixtral); otherwise ReLU (Switch). An expert's weights are one tensor, so that loading it is one copy: `up` [2 ffn or ffn,
 * width] row by row, then `down` [width, ffn]. `hidden` is scratch: its first ffn columns end as act(up inp), the others of a
 * gated expert as the up projection. The second product reads what `hidden` holds, so act(up inp) is rounded to its dtype
 * before; the activation itself is of unrounded sums. Other rows of `hidden` and `out` stay as they are, so both stand on both
 * sides.
 */
export const expertFfnForward = defineKernel({
  name: "expert_ffn.forward",
  signature:
    "inp[assignments, width], weights[3*ffn, width]?gated, weights[2*ffn, width]?!gated, " +
    "hidden[assignments, 2*ffn]?gated, hidden[assignments, ffn]?!gated, out[assignments, width]" +
    " -> hidden[assignments, 2*ffn]?gated, hidden[assignments, ffn]?!gated, out[assignments, width]",
  attributes: { first: number(), count: number(), gated: flag(true) },
  scalars: ["first", "count"],
  costFollowsScalars: true,
  flops: ({ a, dim }) => a.count * dim("ffn") * (2 * dim("width") * (a.gated ? 3 : 2) + (a.gated ? 5 : 1)),
  readBytes: ({ a }, [inp, weights]) => weights.sizeBytes + rowBytes(inp, a.count),
  writtenBytes: ({ a }, _, [hidden, out]) => rowBytes(hidden, a.count) + rowBytes(out, a.count),
  // As so many products of its own: up (and gate), then down.
  parts: ({ a, dim }) => [
    { measure: "product", sizes: { m: a.count, k: dim("width"), n: dim("ffn") }, times: a.gated ? 3 : 2 }
  ],
  reference: ([inp, weights], [hidden, out], { a, dim, stored }) => {
    const [width, ffn, assignments] = [dim("width"), dim("ffn"), dim("assignments")]
    const { first, count, gated } = a
    if (!(first >= 0 && count >= 0 && first + count <= assignments)) {
      throw new RangeError(`expert_ffn.forward: rows ${first} to ${first + count} of ${assignments}`)
    }
    const hiddenWidth = gated ? 2 * ffn : ffn
    const down = hiddenWidth * width
    const rounded = stored(0)
    for (let row = first; row < first + count; row++) {
      for (let h = 0; h < hiddenWidth; h++) {
        let sum = 0
        for (let i = 0; i < width; i++) sum += inp[row * width + i]! * weights[h * width + i]!
        hidden[row * hiddenWidth + h] = sum
      }
      for (let h = 0; h < ffn; h++) {
        const at = row * hiddenWidth + h
        const x = hidden[at]!
        hidden[at] = rounded(gated ? (x / (1 + Math.exp(-x))) * hidden[at + ffn]! : Math.max(0, x))
      }
      for (let o = 0; o < width; o++) {
        let sum = 0
        for (let h = 0; h < ffn; h++) sum += hidden[row * hiddenWidth + h]! * weights[down + o * ffn + h]!
        out[row * width + o] = sum
      }
    }
  }
})

const rowBytes = (
  { shape, sizeBytes }: { readonly shape: ReadonlyArray<number>; readonly sizeBytes: number },
  count: number
): number => (shape[0] === 0 ? 0 : (sizeBytes / shape[0]!) * count)
