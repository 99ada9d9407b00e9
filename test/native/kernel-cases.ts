// Calls of every kernel of the catalogue that the native backend computes, drawn at random: shapes, attributes, values.
// Knows nothing of what runs them.
import type { KernelName } from "../../core/kernels/catalogue.ts"
import type { Attributes, Shape } from "../../core/kernels/kernel.ts"
import type { Dtype } from "../../core/machine/tensor.ts"

/** What a case draws from: every draw is a whole number from `min` to `max`, or a float in (-1, 1). */
export interface Draw {
  integer(min: number, max: number): number
  flag(): boolean
  float(): number
}

export interface CaseInput {
  readonly shape: Shape
  /** Undefined: any float dtype. */
  readonly dtype?: Dtype
  /** Default: floats of about one. */
  readonly value?: (index: number) => number
}

export interface KernelCase {
  readonly inputs: ReadonlyArray<CaseInput>
  readonly attributes?: Attributes
  /** Output by output, the input that it overwrites, if any. */
  readonly inPlace?: ReadonlyArray<number | undefined>
  /** Dtypes that outputs must have here, beyond those of the catalogue. */
  readonly outputDtypes?: ReadonlyArray<Dtype | undefined>
}

const floats = (shape: Shape): CaseInput => ({ shape })
const indices = (draw: Draw, shape: Shape, below: number): CaseInput => ({
  shape,
  dtype: "int32",
  value: () => draw.integer(0, below - 1)
})
const positive = (draw: Draw, shape: Shape, dtype?: Dtype): CaseInput => ({
  shape,
  value: () => 0.5 + Math.abs(draw.float()),
  ...(dtype === undefined ? {} : { dtype })
})

/** Leading extents, empty at times, and none of them at times. */
const leading = (draw: Draw): Shape =>
  Array.from({ length: draw.integer(0, 2) }, () => draw.integer(draw.integer(0, 9) === 0 ? 0 : 1, 7))
const width = (draw: Draw): number => draw.integer(1, 40)

const elementwise =
  (inputs: number, attributes: (draw: Draw) => Attributes = () => ({}), outputs = 1) =>
  (draw: Draw): KernelCase => {
    const shape = [...leading(draw), width(draw)]
    return {
      inputs: Array.from({ length: inputs }, () => floats(shape)),
      attributes: attributes(draw),
      inPlace: Array.from({ length: outputs }, (_, i) => (draw.flag() && i < inputs ? i : undefined))
    }
  }

/** Rows whose statistics are inputs: dout, inp, ... rstd. */
const normalised = (draw: Draw) => {
  const lead = leading(draw)
  const c = width(draw)
  return { lead, c, rows: floats([...lead, c]), rstd: positive(draw, lead, "float32") }
}

const accumulated = (draw: Draw, gradients: ReadonlyArray<Shape>) => {
  const accumulate = draw.flag()
  const inPlace = draw.flag()
  return (inputs: ReadonlyArray<CaseInput>, attributes: Attributes = {}): KernelCase => ({
    inputs: accumulate ? [...inputs, ...gradients.map(floats)] : inputs,
    attributes: { ...attributes, accumulate },
    inPlace: gradients.map((_, i) => (accumulate && inPlace ? inputs.length + i : undefined))
  })
}

const swigluInputs = (draw: Draw) => {
  const packed = draw.flag()
  const lead = leading(draw)
  const c = width(draw)
  const gate = packed ? [floats([...lead, 2 * c])] : [floats([...lead, c]), floats([...lead, c])]
  return { packed, gate, out: floats([...lead, c]) }
}

const attention = (draw: Draw) => {
  const kvHeads = draw.integer(1, 3)
  const heads = kvHeads * draw.integer(1, 3)
  const headWidth = draw.integer(1, 12)
  const packed = draw.flag()
  const causal = draw.flag()
  const batch = draw.integer(1, 2)
  // beyond one tile of queries at times
  const time = draw.integer(0, 4) === 0 ? draw.integer(60, 140) : draw.integer(1, 20)
  const context = packed ? time : causal ? time + draw.integer(0, 9) : draw.integer(1, 30)
  const [q, kv] = [heads * headWidth, kvHeads * headWidth]
  const operands = packed
    ? [floats([batch, time, q + 2 * kv])]
    : [floats([batch, time, q]), floats([batch, context, kv]), floats([batch, context, kv])]
  return { operands, q: floats([batch, time, q]), attributes: { heads, kvHeads, headWidth, packed, causal } }
}

const crossEntropy = (
  draw: Draw,
  inPlace: ReadonlyArray<number | undefined>,
  scaled: boolean
): KernelCase => {
  const lead = leading(draw)
  const vocabulary = draw.integer(1, 60)
  const size = draw.integer(0, 3) === 0 ? 30 : 2
  return {
    inputs: [
      { shape: [...lead, vocabulary], value: () => size * draw.float() },
      {
        shape: lead,
        dtype: "int32",
        // the first row always counts: the mean over none is not a number
        value: (i) => (i > 0 && draw.integer(0, 4) === 0 ? -100 : draw.integer(0, vocabulary - 1))
      }
    ],
    attributes: scaled ? { scale: 1 + draw.float() / 2 } : {},
    inPlace
  }
}

const routes = (draw: Draw) => {
  const topK = draw.integer(1, 3)
  const lead = leading(draw)
  const rows = lead.reduce((product, extent) => product * extent, 1)
  const order = Array.from({ length: rows * topK }, (_, i) => i)
  for (let i = order.length - 1; i > 0; i--) {
    const j = draw.integer(0, i)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const slots: CaseInput = { shape: [...lead, topK], dtype: "int32", value: (i) => order[i]! }
  return { topK, lead, rows, slots, weights: floats([...lead, topK]), width: width(draw) }
}

const experts = (draw: Draw) => {
  const count = draw.integer(1, 4)
  const assignments = draw.integer(0, 20)
  const counts = Array.from({ length: count }, () => 0)
  for (let i = 0; i < assignments; i++) counts[draw.integer(0, count - 1)]!++
  return {
    count,
    assignments,
    counts: { shape: [count], dtype: "int32", value: (i: number) => counts[i]! } satisfies CaseInput,
    inWidth: width(draw),
    outWidth: width(draw)
  }
}

const gate = (draw: Draw) => {
  const count = draw.integer(1, 12)
  const topK = draw.integer(1, Math.min(4, count))
  const lead = leading(draw)
  return { count, topK, lead, attributes: { topK, normalize: draw.flag() } }
}

const packed = (draw: Draw, grid: Dtype, draws: () => number): KernelCase => {
  const elements = draw.integer(0, 50)
  const block = draw.integer(0, 8)
  const size = block === 0 ? Math.max(1, elements) : block
  return {
    inputs: [
      { shape: [elements], dtype: grid, value: draws },
      { ...positive(draw, [Math.ceil(elements / size)]), dtype: "float32" }
    ],
    attributes: { block }
  }
}

const pack = (draw: Draw): KernelCase => {
  const zeros = draw.integer(0, 5) === 0
  return {
    inputs: [{ shape: [...leading(draw), width(draw)], value: () => (zeros ? 0 : 100 * draw.float() ** 5) }],
    attributes: { block: draw.integer(0, 8) }
  }
}

const powers = [0, 0.25, 0.5, 1, 2, 4, 8, 16]

/** Kernels without values of their own are not here: collectives have their own tests, barrier and profiled none. */
export const kernelCases: Partial<Readonly<Record<KernelName, (draw: Draw) => KernelCase>>> = {
  "embedding.forward": (draw) => {
    const vocabulary = draw.integer(1, 9)
    return { inputs: [indices(draw, leading(draw), vocabulary), floats([vocabulary, width(draw)])] }
  },
  "embedding.backward_weight": (draw) => {
    const [vocabulary, lead, c] = [draw.integer(1, 9), leading(draw), width(draw)]
    const make = accumulated(draw, [[vocabulary, c]])
    return make([floats([...lead, c]), indices(draw, lead, vocabulary)], { vocabulary })
  },
  "position_add.forward": (draw) => {
    const [batch, time, c, offset] = [draw.integer(1, 3), draw.integer(1, 5), width(draw), draw.integer(0, 3)]
    const inPlace = [draw.flag() ? 0 : undefined]
    return {
      inputs: [floats([batch, time, c]), floats([offset + time + 1, c])],
      attributes: { offset },
      inPlace
    }
  },
  "position_add.backward_weight": (draw) => {
    const [batch, time, c, offset] = [draw.integer(1, 3), draw.integer(1, 5), width(draw), draw.integer(0, 3)]
    const positions = offset + time + 1
    return accumulated(draw, [[positions, c]])([floats([batch, time, c])], { positions, offset })
  },
  "layer_norm.forward": (draw) => {
    const { c, rows } = normalised(draw)
    return { inputs: [rows, floats([c]), floats([c])], attributes: { epsilon: 1e-3 } }
  },
  "layer_norm.backward_input": (draw) => {
    const { lead, c, rows, rstd } = normalised(draw)
    const mean = { ...floats(lead), dtype: "float32" } as const
    return { inputs: [rows, rows, floats([c]), mean, rstd], inPlace: [draw.flag() ? 0 : undefined] }
  },
  "layer_norm.backward_weight": (draw) => {
    const { lead, c, rows, rstd } = normalised(draw)
    return accumulated(draw, [[c], [c]])([rows, rows, { ...floats(lead), dtype: "float32" }, rstd])
  },
  "rms_norm.forward": (draw) => {
    const { c, rows } = normalised(draw)
    return { inputs: [rows, floats([c])], attributes: { epsilon: 1e-3 } }
  },
  "rms_norm.backward_input": (draw) => {
    const { c, rows, rstd } = normalised(draw)
    return { inputs: [rows, rows, floats([c]), rstd], inPlace: [draw.flag() ? 0 : undefined] }
  },
  "rms_norm.backward_weight": (draw) => {
    const { c, rows, rstd } = normalised(draw)
    return accumulated(draw, [[c]])([rows, rows, rstd])
  },
  "linear.forward": (draw) => {
    const [lead, i, o] = [leading(draw), width(draw), width(draw)]
    return { inputs: [floats([...lead, i]), floats([o, i]), ...(draw.flag() ? [floats([o])] : [])] }
  },
  "linear.backward_input": (draw) => {
    const [lead, i, o] = [leading(draw), width(draw), width(draw)]
    return { inputs: [floats([...lead, o]), floats([o, i])] }
  },
  "linear.backward_weight": (draw) => {
    const [lead, i, o, bias] = [leading(draw), width(draw), width(draw), draw.flag()]
    return accumulated(draw, bias ? [[o, i], [o]] : [[o, i]])([floats([...lead, o]), floats([...lead, i])], {
      bias
    })
  },
  "rope.forward": (draw) => rope(draw),
  "rope.backward": (draw) => rope(draw),
  "attention.forward": (draw) => {
    const { operands, attributes } = attention(draw)
    return { inputs: operands, attributes }
  },
  "attention.backward": (draw) => {
    const { operands, q, attributes } = attention(draw)
    const [batch, time] = q.shape as readonly [number, number]
    // a log-sum-exp that leaves every weight below about one
    const lse: CaseInput = {
      shape: [batch, attributes.heads, time],
      dtype: "float32",
      value: () => 4 + draw.float()
    }
    return { inputs: [q, ...operands, q, lse], attributes }
  },
  "gelu.forward": elementwise(1),
  "gelu.backward": elementwise(2),
  "swiglu.forward": (draw) => {
    const { packed, gate } = swigluInputs(draw)
    return { inputs: gate, attributes: { packed } }
  },
  "swiglu.backward": (draw) => {
    const { packed, gate, out } = swigluInputs(draw)
    return { inputs: [...gate, out], attributes: { packed } }
  },
  "residual.forward": elementwise(2),
  "residual.backward": elementwise(1, undefined, 2),
  "softmax.forward": elementwise(1),
  "softmax.backward": elementwise(2),
  "softmax_cross_entropy.forward": (draw) => crossEntropy(draw, [], false),
  "softmax_cross_entropy.backward": (draw) => crossEntropy(draw, [draw.flag() ? 0 : undefined], true),
  "softmax_cross_entropy.fused": (draw) => crossEntropy(draw, [undefined, draw.flag() ? 0 : undefined], true),
  "topk_gate.forward": (draw) => {
    const { count, lead, attributes } = gate(draw)
    // few distinct values, so that ties are common
    const logits = { shape: [...lead, count], value: () => draw.integer(-3, 3) / 2 }
    return { inputs: [logits], attributes }
  },
  "topk_gate.backward": (draw) => {
    const { count, topK, lead, attributes } = gate(draw)
    const first = draw.integer(0, count - 1)
    const chosen: CaseInput = {
      shape: [...lead, topK],
      dtype: "int32",
      value: (i) => (first + (i % topK)) % count
    }
    return { inputs: [floats([...lead, topK]), positive(draw, [...lead, count]), chosen], attributes }
  },
  moe_permutation: (draw) => {
    const count = draw.integer(1, 6)
    return {
      inputs: [indices(draw, [...leading(draw), draw.integer(1, 3)], count)],
      attributes: { experts: count }
    }
  },
  "moe_dispatch.forward": (draw) => {
    const { topK, lead, slots, width } = routes(draw)
    return { inputs: [floats([...lead, width]), slots], attributes: { topK } }
  },
  "moe_dispatch.backward": (draw) => {
    const { topK, rows, slots, width } = routes(draw)
    return { inputs: [floats([topK * rows, width]), slots], attributes: { topK } }
  },
  "moe_combine.forward": (draw) => {
    const { topK, rows, slots, weights, width } = routes(draw)
    return { inputs: [floats([topK * rows, width]), weights, slots], attributes: { topK } }
  },
  "moe_combine.backward_input": (draw) => {
    const { topK, lead, slots, weights, width } = routes(draw)
    return { inputs: [floats([...lead, width]), weights, slots], attributes: { topK } }
  },
  "moe_combine.backward_gate": (draw) => {
    const { topK, lead, rows, slots, width } = routes(draw)
    return { inputs: [floats([...lead, width]), floats([topK * rows, width]), slots], attributes: { topK } }
  },
  "grouped_linear.forward": (draw) => {
    const e = experts(draw)
    return {
      inputs: [floats([e.assignments, e.inWidth]), floats([e.count, e.outWidth, e.inWidth]), e.counts]
    }
  },
  "grouped_linear.backward_input": (draw) => {
    const e = experts(draw)
    return {
      inputs: [floats([e.assignments, e.outWidth]), floats([e.count, e.outWidth, e.inWidth]), e.counts]
    }
  },
  "grouped_linear.backward_weight": (draw) => {
    const e = experts(draw)
    const make = accumulated(draw, [[e.count, e.outWidth, e.inWidth]])
    return make([floats([e.assignments, e.outWidth]), floats([e.assignments, e.inWidth]), e.counts])
  },
  sgd: (draw) => {
    const momentum = draw.flag() ? 0.9 : 0
    const nesterov = momentum !== 0 && draw.flag()
    return elementwise(
      momentum === 0 ? 2 : 3,
      () => ({
        learningRate: 0.1,
        momentum,
        nesterov,
        dampening: nesterov || draw.flag() ? 0 : 0.3,
        weightDecay: draw.flag() ? 0.01 : 0,
        step: draw.integer(1, 3)
      }),
      momentum === 0 ? 1 : 2
    )(draw)
  },
  adamw: (draw) => {
    const shape = [...leading(draw), width(draw)]
    return {
      inputs: [floats(shape), floats(shape), floats(shape), positive(draw, shape)],
      attributes: { learningRate: 0.1, step: draw.integer(1, 1000) },
      inPlace: draw.flag() ? [0, 2, 3] : []
    }
  },
  outer_nesterov: (draw) => {
    const shape = [...leading(draw), width(draw)]
    const inPlace = draw.flag() ? [0, 1] : []
    return {
      inputs: [floats(shape), floats(shape), floats(shape)],
      attributes: { learningRate: 0.7 },
      inPlace
    }
  },
  squared_norm: (draw) => ({
    inputs: Array.from({ length: draw.integer(1, 4) }, () => floats([...leading(draw), width(draw)]))
  }),
  clip_by_norm: (draw) => {
    const shapes = Array.from({ length: draw.integer(1, 4) }, () => [...leading(draw), width(draw)])
    return {
      inputs: [{ ...positive(draw, []), dtype: "float32" }, ...shapes.map(floats)],
      attributes: { maxNorm: 0.5 + Math.abs(draw.float()) },
      inPlace: shapes.map((_, i) => (draw.flag() ? i + 1 : undefined))
    }
  },
  copy: elementwise(1),
  zero: elementwise(1),
  add: elementwise(2),
  subtract: elementwise(2),
  scale: elementwise(1, (draw) => ({ factor: 3 * draw.float() })),
  lerp: elementwise(2, (draw) => ({ weight: Math.abs(draw.float()) })),
  average: (draw) => elementwise(draw.integer(1, 4))(draw),
  "pack.float4": pack,
  "pack.float8": pack,
  "pack.int8": pack,
  "unpack.float4": (draw) =>
    packed(draw, "float4", () => powers[draw.integer(0, 7)]! * (draw.flag() ? 1 : -1)),
  "unpack.float8": (draw) => packed(draw, "float8", () => 448 * draw.float()),
  "unpack.int8": (draw) => packed(draw, "int8", () => draw.integer(-127, 127)),
  "pack.bfloat16": elementwise(1),
  "unpack.bfloat16": (draw) => ({ inputs: [{ shape: [...leading(draw), width(draw)], dtype: "bfloat16" }] }),
  token_windows: (draw) => {
    const [batch, time] = [draw.integer(1, 5), draw.integer(1, 9)]
    const corpus = { ...indices(draw, [time + draw.integer(1, 200)], 64), value: (index: number) => index }
    // as far as a scenario's seed may go, and the stream that no rank has
    const seed = draw.flag() ? draw.integer(0, 9) : draw.integer(0, 2 ** 52)
    return {
      inputs: [corpus],
      attributes: { batch, time, seed, stream: draw.integer(-1, 4), step: draw.integer(0, 1e6) }
    }
  }
}

const rope = (draw: Draw): KernelCase => {
  const headWidth = 2 * draw.integer(1, 8)
  return {
    inputs: [floats([draw.integer(1, 3), draw.integer(1, 5), headWidth * draw.integer(1, 3)])],
    attributes: { headWidth, offset: draw.integer(0, 100) },
    inPlace: [draw.flag() ? 0 : undefined]
  }
}
