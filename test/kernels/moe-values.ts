// Values for tests of gates and orders: logits whose order a difference quotient cannot change, and layouts.
import { kernels } from "../../core/kernels/catalogue.ts"
import { random, run, type Value } from "./run.ts"

/** Names of the kernels that moe-gradients.test.ts differences. */
export const expertParallel =
  /^(noisy_logits|sigmoid_gate|cosine_scores|expert_choice|soft_gate|soft_order|moe_order|moe_inverse_order)\./u

/** Logits at least 0.3 apart along both axes: no choice flips within a difference step. */
export const apart = (next: () => number, rows: number, columns: number): Value => {
  const logits = random(next, [rows, columns], 0.05)
  const size = rows * columns
  // Steps by a number coprime to the size visit every level once.
  let stride = Math.max(1, Math.floor(size * 0.6))
  const divides = (a: number, b: number): boolean => (b === 0 ? a > 1 : divides(b, a % b))
  while (divides(stride, size)) stride++
  for (let i = 0; i < size; i++) logits.data[i]! += ((i * stride) % size) * 0.4
  return logits
}

export interface Layout {
  readonly experts: number
  readonly ranks: number
  readonly chunks: number
  readonly capacity: number
}

/** A layout of a generated choice, and how many rows each message tensor has. */
export const layoutOf = (chosen: Value, layout: Layout) => {
  const [tokens, assignments, counts] = run(kernels.moe_layout, [chosen], {
    ...layout,
    topK: chosen.shape[1]!
  }) as [Value, Value, Value]
  return { tokens, assignments, counts, rows: rowsOf(layout, Array.from(counts.data)) }
}

/** Rows of each message tensor, chunk by chunk and local expert by local expert, counted independently of the kernel. */
export const rowsOf = (layout: Layout, counts: ReadonlyArray<number>): ReadonlyArray<number> => {
  const local = layout.experts / layout.ranks
  const parts: Array<number> = []
  for (let chunk = 0; chunk < layout.chunks; chunk++) {
    for (let j = 0; j < local; j++) {
      let rows = 0
      for (let rank = 0; rank < layout.ranks; rank++) {
        const count = layout.capacity === 0 ? counts[rank * local + j]! : layout.capacity
        for (let row = 0; row < count; row++) {
          // Row `row` of `count` lies in the last chunk that begins at or before it.
          let own = 0
          while (own + 1 < layout.chunks && Math.floor((count * (own + 1)) / layout.chunks) <= row) own++
          if (own === chunk) rows++
        }
      }
      parts.push(rows)
    }
  }
  return parts
}
