// Calls of the kernels that dense models are made of.
import {
  accumulated,
  elementwise,
  floats,
  indices,
  leading,
  positive,
  width,
  type CaseInput,
  type Draw,
  type KernelCase,
  type KernelCases
} from "./draw.ts"

/** Rows whose statistics are inputs: dout, inp, ... rstd. */
const normalised = (draw: Draw) => {
  const lead = leading(draw)
  const c = width(draw)
  return { lead, c, rows: floats([...lead, c]), rstd: positive(draw, lead, "float32") }
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
  const padding = draw.flag() ? draw.integer(1, 9) : 0
  const size = draw.integer(0, 3) === 0 ? 30 : 2
  const lossScale = [8, 0.5, 1, 0]
  const withScale = scaled && draw.flag()
  return {
    inputs: [
      { shape: [...lead, vocabulary + padding], value: () => size * draw.float() },
      {
        shape: lead,
        dtype: "int32",
        // the first row always counts: the mean over none is not a number
        value: (i) => (i > 0 && draw.integer(0, 4) === 0 ? -100 : draw.integer(0, vocabulary - 1))
      },
      ...(withScale ? [{ shape: [4], dtype: "float32" as const, value: (i: number) => lossScale[i]! }] : [])
    ],
    attributes: {
      ...(withScale ? { scaled: true } : {}),
      ...(padding > 0 ? { classes: vocabulary } : {}),
      ...(scaled ? { scale: 1 + draw.float() / 2 } : {})
    },
    inPlace
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

export const modelCases: KernelCases = {
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
  "softmax_cross_entropy.fused": (draw) => crossEntropy(draw, [undefined, draw.flag() ? 0 : undefined], true)
}
