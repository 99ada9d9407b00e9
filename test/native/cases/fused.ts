// Calls of composite kernels.
import { floats, leading, positive, width, type CaseInput, type Draw, type KernelCases } from "./draw.ts"

/** dsum, dout and inp of a norm, its weight, and the statistics of its rows. */
const normalised = (draw: Draw) => {
  const lead = leading(draw)
  const c = width(draw)
  const statistics: CaseInput = { ...floats(lead), dtype: "float32" }
  return {
    rows: floats([...lead, c]),
    weight: floats([c]),
    mean: statistics,
    rstd: positive(draw, lead, "float32")
  }
}

const linear = (draw: Draw) => ({ lead: leading(draw), i: width(draw), o: width(draw) })

export const fusedCases: KernelCases = {
  "residual_layer_norm.forward": (draw) => {
    const { rows, weight } = normalised(draw)
    return { inputs: [rows, rows, weight, weight], attributes: { epsilon: 1e-3 } }
  },
  "residual_rms_norm.forward": (draw) => {
    const { rows, weight } = normalised(draw)
    return { inputs: [rows, rows, weight], attributes: { epsilon: 1e-3 } }
  },
  "residual_layer_norm.backward": (draw) => {
    const { rows, weight, mean, rstd } = normalised(draw)
    return { inputs: [rows, rows, rows, weight, mean, rstd], inPlace: [draw.flag() ? 0 : undefined] }
  },
  "residual_rms_norm.backward": (draw) => {
    const { rows, weight, rstd } = normalised(draw)
    return { inputs: [rows, rows, rows, weight, rstd], inPlace: [draw.flag() ? 0 : undefined] }
  },
  "layer_norm.backward": (draw) => {
    const { rows, weight, mean, rstd } = normalised(draw)
    return { inputs: [rows, rows, weight, mean, rstd] }
  },
  "rms_norm.backward": (draw) => {
    const { rows, weight, rstd } = normalised(draw)
    return { inputs: [rows, rows, weight, rstd] }
  },
  "linear_gelu.forward": (draw) => {
    const { lead, i, o } = linear(draw)
    return { inputs: [floats([...lead, i]), floats([o, i]), ...(draw.flag() ? [floats([o])] : [])] }
  },
  "gelu_linear.backward_input": (draw) => {
    const { lead, i, o } = linear(draw)
    return { inputs: [floats([...lead, o]), floats([o, i]), floats([...lead, i])] }
  }
}
