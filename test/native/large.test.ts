// Kernels at sizes and dtypes where a backend takes another way than at the small ones of kernels.test.ts: tensor cores, rows
// wider than a warp, lists longer than a block.
import * as fc from "fast-check"
import { afterAll, it } from "vitest"
import { kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import { NativeSession } from "../../exec/native.ts"
import { backend, describeNative } from "./addon.ts"
import { drawnAttention } from "./cases/attention.ts"
import { indices, type CaseInput, type Draw, type KernelCase } from "./cases/draw.ts"
import { checkKernel, drawFrom } from "./check.ts"

/** Tensor cores multiply weights that are rounded to 16 bits: a quarter of their step, and sums of several. */
const narrowProducts = backend === "cuda" ? 2 ** -7 : 1e-5

const of = (dtype: Dtype, ...shape: ReadonlyArray<number>): CaseInput => ({ shape, dtype })
const narrow = (draw: Draw): Dtype => (draw.flag() ? "bfloat16" : "float16")

const attention = drawnAttention({ leastTime: 1, single: true })

const decoding = (draw: Draw): KernelCase => {
  const headWidth = draw.flag() ? 64 : 128
  const kvHeads = draw.integer(1, 2)
  const heads = kvHeads * draw.integer(1, 4)
  const dtype = draw.flag() ? narrow(draw) : "float32"
  const sequences = draw.integer(1, 2)
  const capacities = Array.from({ length: sequences }, () => draw.integer(1, 600))
  const lengths = capacities.map((capacity) => draw.integer(1, capacity))
  const batch = sequences + draw.integer(0, 1)
  return {
    inputs: [
      of(dtype, batch, heads * headWidth),
      { ...of("int32", 1, batch), value: (i) => (lengths[i] ?? 1) - 1 },
      ...capacities.map((capacity) => of(dtype, 2, capacity, kvHeads * headWidth))
    ],
    attributes: {
      heads,
      kvHeads,
      headWidth,
      cached: lengths.reduce((sum, length) => sum + length, 0),
      longest: Math.max(...lengths)
    }
  }
}

/** Shots of a prompt, more than a block has threads every other time. */
const shots = (draw: Draw) => {
  const starts = [0]
  const count = draw.flag() ? draw.integer(1, 40) : draw.integer(1000, 2200)
  const longest = draw.integer(1, 12)
  while (starts.length < count) starts.push(starts.at(-1)! + draw.integer(1, longest))
  return { time: starts.at(-1)! + draw.integer(1, longest), starts: starts.join(","), count }
}

/**
 * Rows of several experts: some without any or with one, some with whole tiles, some with more than a tile, or all of them with one expert;
 * widths that whole rows of a tile have, some beyond a tile.
 */
const groups = (draw: Draw) => {
  const some = () => {
    const kind = draw.integer(0, 3)
    if (kind === 0) return draw.integer(0, 1)
    if (kind === 1) return 64 * draw.integer(1, 4)
    return kind === 2 ? draw.integer(2, 70) : draw.integer(100, 300)
  }
  const experts = draw.integer(1, 4)
  const only = draw.integer(0, 4) === 0 ? draw.integer(0, experts - 1) : undefined
  const counts = Array.from({ length: experts }, (_, expert) =>
    only === undefined || only === expert ? some() : 0
  )
  const rows = counts.reduce((sum, count) => sum + count, 0)
  const [width, out] = [64 * draw.integer(1, 5), 64 * draw.integer(1, 5)]
  return {
    dtype: narrow(draw),
    experts,
    counts: { ...of("int32", counts.length), value: (i: number) => counts[i]! },
    rows,
    width,
    out
  }
}

/** 16-bit factors, or float32 ones, which products may read as TF32: of cuBLASLt's nobody says whether it rounds or cuts. */
const factors = (draw: Draw) => {
  const single = draw.integer(0, 1) === 0
  const tf32 = single && draw.flag()
  return {
    dtype: single ? ("float32" as const) : narrow(draw),
    tf32,
    ...(tf32 && backend === "cuda" ? { products: 2 ** -9 } : {})
  }
}

interface LargeCase {
  readonly make: (draw: Draw) => KernelCase
  readonly products?: number
}

const cases: Partial<Record<KernelName, LargeCase>> = {
  "attention.forward": { make: attention["attention.forward"], products: narrowProducts },
  "attention.backward": { make: attention["attention.backward"], products: narrowProducts },
  "linear.forward": {
    make: (draw) => {
      const { dtype, tf32, ...more } = factors(draw)
      const [rows, width, out] = [draw.integer(1, 130), 8 * draw.integer(1, 30), 8 * draw.integer(1, 30)]
      const bias = draw.flag() ? [of(dtype, out)] : []
      return {
        inputs: [of(dtype, rows, width), of(dtype, out, width), ...bias],
        outputDtype: draw.flag() ? dtype : "float32",
        attributes: { tf32 },
        ...more
      }
    }
  },
  "linear.backward_input": {
    make: (draw) => {
      const { dtype, tf32, ...more } = factors(draw)
      const [rows, width, out] = [draw.integer(1, 130), 8 * draw.integer(1, 30), 8 * draw.integer(1, 30)]
      return {
        inputs: [of(dtype, rows, out), of(dtype, out, width)],
        outputDtype: dtype,
        attributes: { tf32 },
        ...more
      }
    }
  },
  "linear.backward_weight": {
    make: (draw) => {
      const { dtype, tf32, ...more } = factors(draw)
      const to = draw.flag() ? dtype : "float32"
      const [rows, width, out] = [draw.integer(1, 130), 8 * draw.integer(1, 20), 8 * draw.integer(1, 20)]
      const [bias, accumulate] = [draw.flag(), draw.flag()]
      const before = accumulate ? [of(to, out, width), ...(bias ? [of(to, out)] : [])] : []
      return {
        inputs: [of(dtype, rows, out), of(dtype, rows, width), ...before],
        attributes: { bias, accumulate, tf32 },
        outputDtype: to,
        ...more
      }
    }
  },
  "grouped_linear.forward": {
    make: (draw) => {
      const { dtype, experts, counts, rows, width, out } = groups(draw)
      return { inputs: [of(dtype, rows, width), of(dtype, experts, out, width), counts], outputDtype: dtype }
    }
  },
  "grouped_linear.backward_input": {
    make: (draw) => {
      const { dtype, experts, counts, rows, width, out } = groups(draw)
      return { inputs: [of(dtype, rows, out), of(dtype, experts, out, width), counts], outputDtype: dtype }
    }
  },
  "grouped_linear.backward_weight": {
    make: (draw) => {
      const { dtype, experts, counts, rows, width, out } = groups(draw)
      const to = draw.flag() ? dtype : "float32"
      const accumulate = draw.flag()
      const before = accumulate ? [of(to, experts, out, width)] : []
      return {
        inputs: [of(dtype, rows, out), of(dtype, rows, width), counts, ...before],
        attributes: { accumulate },
        outputDtype: to
      }
    }
  },
  "layer_norm.forward": {
    make: (draw) => {
      const width = draw.integer(1000, 3000)
      return { inputs: [of(narrow(draw), 3, width), of("float32", width), of("float32", width)] }
    }
  },
  "rms_norm.backward_input": {
    make: (draw) => {
      const width = draw.integer(1000, 3000)
      const rstd = { ...of("float32", 3), value: () => 1 + draw.float() / 2 }
      return { inputs: [of(narrow(draw), 3, width), of("float32", 3, width), of("float32", width), rstd] }
    }
  },
  "layer_norm.backward_weight": {
    make: (draw) => {
      const [rows, width] = [draw.integer(30, 300), draw.integer(200, 600)]
      const rstd = { ...of("float32", rows), value: () => 1 + draw.float() / 2 }
      return {
        inputs: [of(narrow(draw), rows, width), of("bfloat16", rows, width), of("float32", rows), rstd]
      }
    }
  },
  "softmax_cross_entropy.fused": {
    make: (draw) => {
      const rows = draw.integer(1, 6)
      // some rows that are wide and lie on eights
      const vocabulary = draw.flag() ? draw.integer(1000, 9000) : 8 * draw.integer(1024, 2000)
      const targets = indices(draw, [rows], vocabulary)
      return {
        inputs: [of(narrow(draw), rows, vocabulary), targets],
        inPlace: [undefined, draw.flag() ? 0 : undefined]
      }
    }
  },
  "embedding.backward_weight": {
    make: (draw) => {
      const [vocabulary, rows, width] = [draw.integer(1, 50), draw.integer(1, 700), draw.integer(1, 1100)]
      return {
        inputs: [of(narrow(draw), rows, width), indices(draw, [rows], vocabulary)],
        attributes: { vocabulary }
      }
    }
  },
  "linear_gelu.forward": {
    make: (draw) => {
      const { dtype, tf32 } = factors(draw)
      const [rows, width, out] = [draw.integer(1, 130), 8 * draw.integer(1, 30), 8 * draw.integer(1, 30)]
      const bias = draw.flag() ? [of(dtype, out)] : []
      return {
        inputs: [of(dtype, rows, width), of(dtype, out, width), ...bias],
        outputDtype: dtype,
        attributes: { tf32 }
      }
    },
    // the library's own tanh
    products: backend === "cuda" ? 2 ** -9 : 1e-5
  },
  "gelu_linear.backward_input": {
    make: (draw) => {
      const { dtype, tf32 } = factors(draw)
      const [rows, width, out] = [draw.integer(1, 130), 8 * draw.integer(1, 30), 8 * draw.integer(1, 30)]
      return {
        inputs: [of(dtype, rows, out), of(dtype, out, width), of(dtype, rows, width)],
        outputDtype: dtype,
        attributes: { tf32 }
      }
    },
    products: backend === "cuda" ? 2 ** -9 : 1e-5
  },
  adamw: {
    make: (draw) => {
      const shapes = [draw.integer(1, 40_000)]
      const all = (dtype: Dtype, value?: () => number) =>
        shapes.map((elements) => ({ ...of(dtype, elements), ...(value === undefined ? {} : { value }) }))
      return {
        inputs: [
          ...all("float32"),
          ...all(narrow(draw)),
          ...all("float32"),
          ...all("float32", () => draw.float() ** 2)
        ],
        attributes: { learningRate: 1e-2, step: draw.integer(1, 100) },
        outputDtype: "float32"
      }
    }
  },
  squared_norm: {
    make: (draw) => ({
      inputs: [of("float32", draw.integer(1, 70_000)), of("bfloat16", draw.integer(1, 40_000))]
    })
  },
  "pack.float8": {
    make: (draw) => ({ inputs: [of("float32", draw.integer(16_000, 40_000))], attributes: { block: 0 } })
  },
  "kv.attention": { make: decoding },
  "kv.window_scores": {
    make: (draw) => {
      // probabilities of 16-bit prompts; bare products of any
      const softmax = draw.integer(0, 2) > 0
      const dtype = softmax || draw.flag() ? narrow(draw) : "float32"
      const headWidth = softmax || draw.flag() ? (draw.flag() ? 64 : 128) : draw.integer(1, 300)
      const kvHeads = draw.integer(1, 2)
      const heads = kvHeads * draw.integer(1, 3)
      // beyond one block of keys, and beyond one of queries
      const time = draw.integer(200, 1300)
      const window = draw.flag() ? draw.integer(1, 40) : draw.integer(90, 150)
      return {
        // every other time with the sums of exponentials, of about as large as those of so many keys are
        inputs: [
          of(dtype, 1, time, heads * headWidth),
          of(dtype, 1, time, kvHeads * headWidth),
          ...(draw.flag()
            ? [{ ...of("float32", 1, heads, time), value: () => Math.log(time) + draw.float() }]
            : [])
        ],
        attributes: { heads, kvHeads, headWidth, window, softmax },
        outputDtype: "float32"
      }
    }
  },
  "kv.top_tokens": {
    make: (draw) => {
      const time = draw.integer(900, 5000)
      // ties, and both signs
      const scores = { ...of("float32", 2, time), value: () => Math.round(50 * draw.float()) / 50 }
      return { inputs: [scores], attributes: { count: draw.integer(1, time) } }
    }
  },
  "kv.top_chunks": {
    make: (draw) => {
      const [time, chunk] = [draw.integer(2000, 9000), draw.integer(1, 20)]
      const chunks = Math.ceil(time / chunk)
      const [count, window] = [draw.integer(1, chunks), draw.integer(1, 64)]
      const limit = draw.integer(1, time)
      const scores = { ...of("float32", chunks), value: () => Math.round(50 * draw.float()) / 50 }
      return {
        inputs: [scores],
        attributes: { time, chunk, count, limit, window }
      }
    }
  },
  "kv.shot_scores": {
    make: (draw) => {
      const { time, starts } = shots(draw)
      return { inputs: [of("float32", draw.integer(1, 8), time)], attributes: { starts } }
    }
  },
  "kv.top_shots": {
    make: (draw) => {
      const { time, starts, count } = shots(draw)
      const scores = { ...of("float32", count), value: () => Math.round(50 * draw.float()) / 50 }
      return { inputs: [scores], attributes: { time, starts, budget: draw.integer(1, time) } }
    }
  },
  "expert_ffn.forward": {
    make: (draw) => {
      const dtype = draw.integer(0, 2) === 0 ? "float32" : narrow(draw)
      const [assignments, width, ffn, gated] = [
        draw.integer(1, 40),
        128,
        128 * draw.integer(1, 2),
        draw.flag()
      ]
      const first = draw.integer(0, assignments - 1)
      return {
        inputs: [
          of(dtype, assignments, width),
          of(dtype, (gated ? 3 : 2) * ffn, width),
          of(dtype, assignments, gated ? 2 * ffn : ffn),
          of(dtype, assignments, width)
        ],
        attributes: { first, count: draw.integer(1, assignments - first), gated },
        inPlace: [2, 3],
        products: dtype === "float32" ? 1e-5 : 2 ** -7
      }
    }
  },
  moe_permutation: {
    make: (draw) => {
      const experts = draw.integer(1, 9)
      return { inputs: [indices(draw, [draw.integer(900, 3000), 2], experts)], attributes: { experts } }
    }
  }
}

describeNative("native kernels beyond one block", () => {
  const session = NativeSession.open({ ranks: 1, backend })
  afterAll(() => session.close())

  for (const [name, { make, products }] of Object.entries(cases)) {
    it(`${name} equals its reference`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 1e9 }), async (seed) => {
          const draw = drawFrom(seed)
          await checkKernel(session, kernels[name as KernelName], make(draw), draw, products)
        }),
        { numRuns: 12 }
      )
    })
  }
})
