// Attention with heads as models have them: what tensor cores, tiles and libraries compute.
import type { Dtype } from "../../../core/machine/tensor.ts"
import type { CaseInput, Draw, KernelCase } from "./draw.ts"

const of = (dtype: Dtype, ...shape: ReadonlyArray<number>): CaseInput => ({ shape, dtype })

interface Kinds {
  readonly leastTime: number
  /** Besides 16-bit heads of the widths that tensor cores take float32 ones of any width, those of tiles and a little wider. */
  readonly single: boolean
  /** Gradients are of keys in multiples of this; default 1. */
  readonly keysMultiple?: number
}

const attention = (draw: Draw, { leastTime, single: withSingle }: Kinds, multiple = 1) => {
  const single = withSingle && draw.integer(0, 2) === 0
  const dtype: Dtype = single ? "float32" : draw.flag() ? "bfloat16" : "float16"
  const headWidth = single && draw.flag() ? draw.integer(1, 140) : draw.flag() ? 64 : 128
  const kvHeads = draw.integer(1, 2)
  const heads = kvHeads * draw.integer(1, 3)
  const packed = draw.flag()
  const causal = draw.flag()
  const batch = draw.integer(1, 2)
  const up = (tokens: number): number => multiple * Math.ceil(tokens / multiple)
  const drawnTime = draw.integer(leastTime, 150)
  const time = packed ? up(drawnTime) : drawnTime
  const context = packed ? time : up(causal ? time + draw.integer(0, 70) : draw.integer(1, 150))
  const [q, kv] = [heads * headWidth, kvHeads * headWidth]
  const operands = packed
    ? [of(dtype, batch, time, q + 2 * kv)]
    : [of(dtype, batch, time, q), of(dtype, batch, context, kv), of(dtype, batch, context, kv)]
  const attributes = { heads, kvHeads, headWidth, packed, causal }
  const exactness = single ? { products: 1e-5 } : {}
  return { dtype, operands, q: of(dtype, batch, time, q), attributes, exactness }
}

/** Calls of both passes. */
export const drawnAttention = (kinds: Kinds) => ({
  "attention.forward": (draw: Draw): KernelCase => {
    const { dtype, operands, attributes, exactness } = attention(draw, kinds)
    return { inputs: operands, attributes, outputDtype: dtype, ...exactness }
  },
  "attention.backward": (draw: Draw): KernelCase => {
    const { dtype, operands, q, attributes, exactness } = attention(draw, kinds, kinds.keysMultiple)
    const [batch, time] = q.shape as readonly [number, number]
    // scores of wide heads reach some twenty: a log-sum-exp that leaves every weight below about one
    const lse = {
      ...of("float32", batch, attributes.heads, time),
      value: () => 6 + draw.float()
    }
    return { inputs: [q, ...operands, q, lse], attributes, outputDtype: dtype, ...exactness }
  }
})

/** cuDNN has no gradients of one query and one key, some versions of keys in multiples alone. */
export const cudnnAttention = (keysMultiple: number) =>
  drawnAttention({ leastTime: 2, single: false, keysMultiple })
