// Calls of composite kernels, which a backend may have as one kernel.
import { backend } from "../addon.ts"
import {
  floats,
  leading,
  positive,
  width,
  type CaseInput,
  type Draw,
  type KernelCase,
  type KernelCases
} from "./draw.ts"

/** Rows of a norm: at times as wide as its columns fit the registers of a warp. */
const rows = (draw: Draw) => {
  const c = draw.flag() ? 8 * draw.integer(1, 128) : width(draw)
  const lead = c > 100 ? [draw.integer(1, 30)] : leading(draw)
  const rstd = positive(draw, lead, "float32")
  const mean = { ...floats(lead), dtype: "float32" } as const
  return { c, rows: floats([...lead, c]), rstd, mean, vector: floats([c]) }
}

const residualForward =
  (centred: boolean) =>
  (draw: Draw): KernelCase => {
    const { rows: inp, vector } = rows(draw)
    return { inputs: [inp, inp, vector, ...(centred ? [vector] : [])], attributes: { epsilon: 1e-3 } }
  }

const backward =
  (centred: boolean, residual: boolean) =>
  (draw: Draw): KernelCase => {
    const { rows: inp, vector, mean, rstd } = rows(draw)
    const statistics: ReadonlyArray<CaseInput> = centred ? [mean, rstd] : [rstd]
    return {
      inputs: [...(residual ? [inp] : []), inp, inp, vector, ...statistics],
      inPlace: [residual && draw.flag() ? 0 : undefined]
    }
  }

const linear = (draw: Draw) => {
  const [lead, i, o] = [leading(draw), width(draw), draw.flag() ? 8 * draw.integer(1, 8) : width(draw)]
  return { inp: floats([...lead, i]), out: floats([...lead, o]), weight: floats([o, i]), bias: floats([o]) }
}

/**
 * cuBLASLt's GELU of 16-bit values errs as the GPU's tanh does, which is right to 2^-11 (PTX ISA, tanh.approx): by half of that of
 * what goes into it.
 */
const geluOnly = backend === "cuda" ? { approximate: [undefined, 2 ** -12] } : {}

export const fusedCases: KernelCases = {
  "residual_layer_norm.forward": residualForward(true),
  "residual_rms_norm.forward": residualForward(false),
  "layer_norm.backward": backward(true, false),
  "rms_norm.backward": backward(false, false),
  "residual_layer_norm.backward": backward(true, true),
  "residual_rms_norm.backward": backward(false, true),
  "linear_gelu.forward": (draw) => {
    const { inp, weight, bias } = linear(draw)
    return { inputs: [inp, weight, ...(draw.flag() ? [bias] : [])], ...geluOnly }
  },
  "gelu_linear.backward_input": (draw) => {
    const { inp, out, weight } = linear(draw)
    return { inputs: [out, weight, inp] }
  }
}
