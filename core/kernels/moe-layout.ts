// Which row of what is sent to experts is whose, in an expert-parallel MoE layer. Rows lie in as many tensors as there are messages:
// pipeline chunk by chunk, and in a chunk one tensor for each expert of a rank, rows of the first rank first. moe-order.ts moves them.
import { defineKernel, number } from "./kernel.ts"
import { printShape } from "./signature.ts"

/** Rows before chunk `chunk` of `chunks`, when `rows` are cut as evenly as can be. */
export const chunkStart = (rows: number, chunk: number, chunks: number): number =>
  Math.floor((rows * chunk) / chunks)

const layoutAttributes = {
  experts: number(),
  /** Ranks the experts are spread over; expert e lives on rank floor(e / (experts / ranks)). */
  ranks: number(),
  /** Pipeline chunks. */
  chunks: number(),
  /** Rows of each expert, taken or not; 0: as many as were chosen, none dropped. */
  capacity: number(0)
}

interface Layout {
  readonly experts: number
  readonly ranks: number
  readonly chunks: number
  readonly capacity: number
}

/** Calls `visit(row, expert, position)` for every row in order of memory; `counts` are the rows of each expert. */
const forEachRow = (
  { experts, ranks, chunks }: Layout,
  counts: ArrayLike<number>,
  visit: (row: number, expert: number, position: number) => void
): void => {
  const local = experts / ranks
  let row = 0
  for (let chunk = 0; chunk < chunks; chunk++) {
    for (let j = 0; j < local; j++) {
      for (let rank = 0; rank < ranks; rank++) {
        const expert = rank * local + j
        const end = chunkStart(counts[expert]!, chunk + 1, chunks)
        for (let position = chunkStart(counts[expert]!, chunk, chunks); position < end; position++) {
          visit(row, expert, position)
          row++
        }
      }
    }
  }
}

const checkLayout = (name: string, { experts, ranks, chunks, capacity }: Layout): void => {
  if (!(ranks > 0) || experts % ranks !== 0) {
    throw new RangeError(`${name}: ${experts} experts on ${ranks} ranks`)
  }
  if (!(chunks > 0) || capacity % chunks !== 0) {
    throw new RangeError(`${name}: capacity ${capacity} in ${chunks} chunks`)
  }
}

/**
 * Where each choice goes. `counts`: how many tokens chose each expert, dropped ones included. First choices are placed
 * before second ones (GShard), by token within; what exceeds the capacity is dropped.
 */
export const moeLayout = defineKernel({
  name: "moe_layout",
  signature: "chosen[tokens, topK] -> tokens[rows], assignments[rows], counts[experts]",
  attributes: { ...layoutAttributes, topK: number() },
  inputDtypes: ["int32"],
  outputDtypes: ["int32", "int32", "int32"],
  shapes: ([chosen, ...others], a) => {
    checkLayout("moe_layout", a)
    if (chosen === undefined || others.length > 0 || chosen.length !== 2 || chosen[1] !== a.topK) {
      throw new RangeError(
        `moe_layout: input 0 (chosen) has shape ${printShape(chosen ?? [])}; expected [tokens, ${a.topK}]`
      )
    }
    const rows = a.capacity === 0 ? chosen[0]! * a.topK : a.experts * a.capacity
    return [[rows], [rows], [a.experts]]
  },
  flops: () => 0,
  reference: ([chosen], [tokens, assignments, counts], { a }) => {
    counts.fill(0)
    // taken[expert][position]: the assignment there.
    const taken: Array<Array<number>> = Array.from({ length: a.experts }, () => [])
    for (let k = 0; k < a.topK; k++) {
      for (let at = k; at < chosen.length; at += a.topK) {
        const expert = chosen[at]!
        if (!(expert >= 0 && expert < a.experts)) {
          throw new RangeError(`moe_layout: expert ${expert} of ${a.experts}`)
        }
        counts[expert]!++
        taken[expert]!.push(at)
      }
    }
    const rows = a.capacity === 0 ? counts : new Int32Array(a.experts).fill(a.capacity)
    forEachRow(a, rows, (row, expert, position) => {
      const assignment = taken[expert]![position] ?? -1
      assignments[row] = assignment
      tokens[row] = assignment < 0 ? -1 : Math.floor(assignment / a.topK)
    })
  }
})

/** The same for expert choice: each expert's own tokens, in its order. */
export const expertChoiceLayout = defineKernel({
  name: "expert_choice_layout",
  signature: "chosen[experts, capacity] -> tokens[experts*capacity], assignments[experts*capacity]",
  attributes: layoutAttributes,
  inputDtypes: ["int32"],
  outputDtypes: ["int32", "int32"],
  extents: (a) => {
    checkLayout("expert_choice_layout", a)
    return { experts: a.experts, capacity: a.capacity }
  },
  flops: () => 0,
  reference: ([chosen], [tokens, assignments], { a }) => {
    forEachRow(a, new Int32Array(a.experts).fill(a.capacity), (row, expert, position) => {
      assignments[row] = expert * a.capacity + position
      tokens[row] = chosen[expert * a.capacity + position]!
    })
  }
})

/** The same for SoftMoE, where a row is a slot, a mix of all tokens: the column of dispatch and combine it belongs to. */
export const softLayout = defineKernel({
  name: "soft_layout",
  signature: "-> columns[experts*capacity]",
  attributes: layoutAttributes,
  outputDtypes: ["int32"],
  shapes: (inputs, a) => {
    checkLayout("soft_layout", a)
    if (inputs.length > 0) throw new RangeError(`soft_layout: ${inputs.length} inputs given, 0 expected`)
    return [[a.experts * a.capacity]]
  },
  flops: () => 0,
  reference: (_inputs, [columns], { a }) => {
    forEachRow(a, new Int32Array(a.experts).fill(a.capacity), (row, expert, position) => {
      columns[row] = expert * a.capacity + position
    })
  }
})
