// Calls of the gates and orders of expert-parallel layers, and of an expert's feed-forward layer.
import { printIntegers } from "../../../core/kernels/integer-list.ts"
import {
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

/** Logits with ties. */
const logits = (draw: Draw, shape: ReadonlyArray<number>): CaseInput => ({
  shape,
  value: () => draw.integer(-6, 6) / 2
})

const layout = (draw: Draw) => {
  const ranks = draw.integer(1, 3)
  const chunks = draw.integer(1, 3)
  return { ranks, chunks, experts: ranks * draw.integer(1, 3), capacity: chunks * draw.integer(1, 4) }
}

/** `total` cut into at most four parts, some of them empty. */
const cut = (draw: Draw, total: number): ReadonlyArray<number> => {
  const parts = Array.from({ length: draw.integer(0, 3) }, () => draw.integer(0, total))
  const ends = [...parts, total].toSorted((x, y) => x - y)
  return ends.map((end, i) => end - (ends[i - 1] ?? 0))
}

/** Rows for tokens, some taken by none; every assignment at most once. */
const ordered = (draw: Draw) => {
  const [tokens, topK, count, columns] = [
    draw.integer(1, 8),
    draw.integer(1, 3),
    draw.integer(0, 20),
    width(draw)
  ]
  const left = Array.from({ length: tokens * topK }, (_, i) => i)
  const assignments = Array.from({ length: count }, () =>
    left.length === 0 || draw.integer(0, 4) === 0 ? -1 : left.splice(draw.integer(0, left.length - 1), 1)[0]!
  )
  const parts = cut(draw, count)
  const integers = (value: (i: number) => number): CaseInput => ({ shape: [count], dtype: "int32", value })
  return {
    tokens,
    parts,
    rows: printIntegers(parts),
    inputs: floats([tokens, columns]),
    tensors: parts.map((part) => floats([part, columns])),
    weights: floats([tokens, topK]),
    tokenOf: integers((i) => (assignments[i]! < 0 ? -1 : Math.floor(assignments[i]! / topK))),
    assignmentOf: integers((i) => assignments[i]!)
  }
}

/** Rows that are mixes of all tokens, each of its own slot. */
const mixed = (draw: Draw) => {
  const [tokens, slots, columns] = [draw.integer(1, 8), draw.integer(1, 9), width(draw)]
  const parts = cut(draw, slots)
  const first = draw.integer(0, slots - 1)
  return {
    rows: printIntegers(parts),
    side: floats([tokens, columns]),
    mix: floats([tokens, slots]),
    columns: {
      shape: [slots],
      dtype: "int32",
      value: (i: number) => (first + i) % slots
    } satisfies CaseInput,
    tensors: parts.map((part) => floats([part, columns]))
  }
}

const cosine = (draw: Draw) => {
  const [lead, experts, c] = [leading(draw), draw.integer(1, 8), width(draw)]
  return {
    dscores: floats([...lead, experts]),
    inp: floats([...lead, c]),
    weight: floats([experts, c]),
    attributes: { temperature: 0.5 }
  }
}

const rechunk = (draw: Draw): KernelCase => {
  const blocks = Array.from({ length: draw.integer(1, 3) }, () => draw.integer(0, 9))
  const [before, chunks, c] = [draw.integer(1, 4), draw.integer(1, 4), width(draw)]
  const rowsOf = (chunk: number): number =>
    blocks.reduce(
      (sum, count) => sum + Math.floor((count * (chunk + 1)) / before) - Math.floor((count * chunk) / before),
      0
    )
  return {
    inputs: Array.from({ length: before }, (_, chunk) => floats([rowsOf(chunk), c])),
    attributes: { blocks: printIntegers(blocks), chunks }
  }
}

export const moeOrderCases: KernelCases = {
  random_normal: (draw) => ({
    inputs: [],
    attributes: { rows: draw.integer(0, 6), width: width(draw), seed: draw.integer(0, 2 ** 52) }
  }),
  "noisy_logits.forward": elementwise(3),
  "noisy_logits.backward": elementwise(3),
  "sigmoid_gate.forward": (draw) => {
    const experts = draw.integer(1, 12)
    const topK = draw.integer(1, experts)
    return { inputs: [logits(draw, [...leading(draw), experts])], attributes: { topK } }
  },
  "sigmoid_gate.backward": (draw) => {
    const [experts, lead] = [draw.integer(1, 12), leading(draw)]
    const topK = draw.integer(1, experts)
    const first = draw.integer(0, experts - 1)
    const chosen: CaseInput = {
      shape: [...lead, topK],
      dtype: "int32",
      value: (i) => (first + (i % topK)) % experts
    }
    const weights = positive(draw, [...lead, topK])
    return {
      inputs: [floats([...lead, topK]), weights, chosen, floats([...lead, experts])],
      attributes: { topK }
    }
  },
  "cosine_scores.forward": (draw) => {
    const { inp, weight, attributes } = cosine(draw)
    return { inputs: [inp, weight], attributes }
  },
  "cosine_scores.backward_input": (draw) => {
    const { dscores, inp, weight, attributes } = cosine(draw)
    return { inputs: [dscores, inp, weight, dscores], attributes }
  },
  "cosine_scores.backward_weight": (draw) => {
    const { dscores, inp, weight, attributes } = cosine(draw)
    return { inputs: [dscores, inp, weight, dscores], attributes }
  },
  "expert_choice.forward": (draw) => {
    const tokens = draw.integer(1, 12)
    return {
      inputs: [logits(draw, [tokens, draw.integer(1, 5)])],
      attributes: { capacity: draw.integer(1, tokens) }
    }
  },
  "expert_choice.backward": (draw) => {
    const [tokens, experts] = [draw.integer(1, 12), draw.integer(1, 5)]
    const capacity = draw.integer(1, tokens)
    const first = draw.integer(0, tokens - 1)
    const taken = [experts, capacity]
    const chosen: CaseInput = {
      shape: taken,
      dtype: "int32",
      value: (i) => (first + (i % capacity)) % tokens
    }
    return {
      inputs: [floats(taken), positive(draw, taken), chosen, floats([tokens, experts])],
      attributes: { capacity }
    }
  },
  "soft_gate.forward": (draw) => ({ inputs: [floats([draw.integer(1, 9), draw.integer(1, 9)])] }),
  "soft_gate.backward": (draw) => {
    const shape = [draw.integer(1, 9), draw.integer(1, 9)]
    return { inputs: [floats(shape), floats(shape), floats(shape), floats(shape)] }
  },
  moe_layout: (draw) => {
    const { experts, capacity, ...rest } = layout(draw)
    const topK = draw.integer(1, 3)
    return {
      inputs: [indices(draw, [draw.integer(0, 9), topK], experts)],
      attributes: { ...rest, experts, topK, capacity: draw.flag() ? capacity : 0 }
    }
  },
  expert_choice_layout: (draw) => {
    const attributes = layout(draw)
    return { inputs: [indices(draw, [attributes.experts, attributes.capacity], 9)], attributes }
  },
  soft_layout: (draw) => ({ inputs: [], attributes: layout(draw) }),
  "moe_order.forward": (draw) => {
    const { inputs, tokenOf, rows } = ordered(draw)
    return { inputs: [inputs, tokenOf], attributes: { rows } }
  },
  "moe_order.backward": (draw) => {
    const { tokens, tensors, tokenOf } = ordered(draw)
    return { inputs: [tokenOf, ...tensors], attributes: { inputs: tokens } }
  },
  "moe_inverse_order.forward": (draw) => {
    const { tokens, weights, tokenOf, assignmentOf, tensors } = ordered(draw)
    return { inputs: [weights, tokenOf, assignmentOf, ...tensors], attributes: { outputs: tokens } }
  },
  "moe_inverse_order.backward_input": (draw) => {
    const { inputs, weights, tokenOf, assignmentOf, rows } = ordered(draw)
    return { inputs: [inputs, weights, tokenOf, assignmentOf], attributes: { rows } }
  },
  "moe_inverse_order.backward_gate": (draw) => {
    const { inputs, weights, tokenOf, assignmentOf, tensors } = ordered(draw)
    return { inputs: [inputs, weights, tokenOf, assignmentOf, ...tensors] }
  },
  "soft_order.forward": (draw) => {
    const { side, mix, columns, rows } = mixed(draw)
    return { inputs: [side, mix, columns], attributes: { rows } }
  },
  "soft_inverse_order.forward": (draw) => {
    const { mix, columns, tensors } = mixed(draw)
    return { inputs: [mix, columns, ...tensors] }
  },
  "soft_order.backward_mix": (draw) => {
    const { side, mix, columns, tensors } = mixed(draw)
    return { inputs: [side, mix, columns, ...tensors] }
  },
  moe_rechunk: rechunk,
  "expert_ffn.forward": (draw) => {
    const [assignments, c, ffn, gated] = [draw.integer(0, 12), width(draw), width(draw), draw.flag()]
    const first = draw.integer(0, assignments)
    const dtype = draw.flag() ? "float32" : draw.flag() ? "bfloat16" : "float16"
    return {
      inputs: [
        floats([assignments, c]),
        floats([(gated ? 3 : 2) * ffn, c]),
        { ...floats([assignments, gated ? 2 * ffn : ffn]), dtype },
        floats([assignments, c])
      ],
      attributes: { first, count: draw.integer(0, assignments - first), gated },
      inPlace: [2, 3],
      // a step of the element that turned
      ...(dtype === "float32" ? {} : { products: 2 ** -7 })
    }
  }
}
