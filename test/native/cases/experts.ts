// Calls of the kernels of mixtures of experts.
import {
  accumulated,
  floats,
  indices,
  leading,
  positive,
  width,
  type CaseInput,
  type Draw,
  type KernelCases
} from "./draw.ts"

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

export const expertCases: KernelCases = {
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
  }
}
