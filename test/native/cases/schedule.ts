// Calls of the kernels that optimizers and schedules use: steps, elementwise arithmetic, packing.
import type { Dtype } from "../../../core/machine/tensor.ts"
import {
  elementwise,
  floats,
  leading,
  positive,
  width,
  type CaseInput,
  type Draw,
  type KernelCase,
  type KernelCases
} from "./draw.ts"

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

/** Shapes of a list of tensors, one at times. */
const lists = (draw: Draw) =>
  Array.from({ length: draw.flag() ? 1 : draw.integer(2, 4) }, () => [...leading(draw), width(draw)])

/** What `loss_scale` leaves: a scale, by what gradients are multiplied (0: the step is skipped), steps taken and skipped. */
const scaling = (draw: Draw): CaseInput => {
  const factor = draw.integer(0, 3) === 0 ? 0 : 2 ** draw.integer(-16, 2) * (draw.flag() ? 1 : 0.7)
  const values = [1024, factor, draw.integer(0, 9), draw.integer(0, 3)]
  return { shape: [4], dtype: "float32", value: (i) => values[i]! }
}

const powers = [0, 0.25, 0.5, 1, 2, 4, 8, 16]
export const scheduleCases: KernelCases = {
  sgd: (draw) => {
    const momentum = draw.flag() ? 0.9 : 0
    const nesterov = momentum !== 0 && draw.flag()
    const shadow = draw.flag()
    const shapes = lists(draw)
    const operands = momentum === 0 ? 2 : 3
    const scaled = draw.flag()
    return {
      inputs: [
        ...Array.from({ length: operands }, () => shapes.map(floats)).flat(),
        ...(scaled ? shapes.map(() => scaling(draw)) : [])
      ],
      attributes: {
        scaled,
        learningRate: 0.1,
        momentum,
        nesterov,
        dampening: nesterov || draw.flag() ? 0 : 0.3,
        weightDecay: draw.flag() ? 0.01 : 0,
        shadow,
        step: draw.integer(1, 3)
      },
      inPlace: draw.flag()
        ? [...shapes.keys(), ...(momentum === 0 ? [] : shapes.map((_, index) => 2 * shapes.length + index))]
        : []
    }
  },
  adamw: (draw) => {
    const shapes = lists(draw)
    const own = (operand: number) => shapes.map((_, index) => operand * shapes.length + index)
    const scaled = draw.flag()
    return {
      inputs: [
        ...[0, 1, 2].flatMap(() => shapes.map(floats)),
        ...shapes.map((shape) => positive(draw, shape)),
        ...(scaled ? shapes.map(() => scaling(draw)) : [])
      ],
      attributes: {
        learningRate: 0.1,
        step: draw.integer(scaled ? 4 : 1, 1000),
        shadow: draw.flag(),
        scaled
      },
      inPlace: draw.flag() ? [...own(0), ...own(2), ...own(3)] : []
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
  loss_scale: (draw) => {
    const sum = draw.integer(0, 5) === 0 ? (draw.flag() ? Infinity : NaN) : 4 ** draw.integer(-20, 20)
    const values = [2 ** draw.integer(-25, 127), 0.5, draw.integer(0, 4), draw.integer(0, 9)]
    return {
      inputs: [
        { shape: [], dtype: "float32", value: () => sum },
        { shape: [4], dtype: "float32", value: (i) => values[i]! }
      ],
      attributes: {
        maxNorm: draw.flag() ? 0 : 0.5 + Math.abs(draw.float()),
        growthInterval: draw.integer(1, 5)
      },
      inPlace: [draw.flag() ? 1 : undefined]
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
  "unpack.bfloat16": (draw) => ({ inputs: [{ shape: [...leading(draw), width(draw)], dtype: "bfloat16" }] })
}
