// Results that a simulated run has of the real one: found in its journals, put in where an op would leave its own, and told again in
// the simulated run's.
import type { Journal } from "../laws/journal.ts"
import type { OpId } from "../machine/op.ts"
import type { TensorData } from "../machine/tensor.ts"
import type { OpEntry } from "./narrow.ts"

/** An op of a real run: where it is in its rank's journal, and what was kept of it. */
export interface HeldOp<Kept> {
  readonly at: number
  readonly entry: OpEntry
  readonly kept: Kept
}

/** Of a real run's journals, by rank and op, what `keptOf` finds of each op; those of which that is undefined are left out. */
export const heldOps = <Kept>(
  journals: ReadonlyArray<Journal>,
  keptOf: (entry: OpEntry) => Kept | undefined
): ReadonlyMap<number, ReadonlyMap<OpId, HeldOp<Kept>>> =>
  new Map(
    journals.map(({ rank, entries }) => {
      const own = new Map<OpId, HeldOp<Kept>>()
      for (const [at, entry] of entries.entries()) {
        const kept = entry.kind === "op" ? keptOf(entry) : undefined
        if (entry.kind === "op" && kept !== undefined) own.set(entry.id, { at, entry, kept })
      }
      return [rank, own]
    })
  )

export class ReplacedResults {
  /** By rank and op. */
  readonly #replaced = new Map<number, Map<OpId, ReadonlyArray<TensorData>>>()

  /** `outputs`, what the op left in the simulated run, become `results`. */
  put(rank: number, op: OpId, outputs: ReadonlyArray<TensorData>, results: ReadonlyArray<TensorData>): void {
    const own = this.#replaced.get(rank) ?? new Map<OpId, ReadonlyArray<TensorData>>()
    this.#replaced.set(rank, own.set(op, results))
    for (const [index, data] of outputs.entries()) data.set(results[index]!)
  }

  /** The simulated run's journal with what it has of the real one: what came before matters no more for that. */
  withResults({ rank, entries }: Journal): Journal {
    const replaced = this.#replaced.get(rank)
    return {
      rank,
      entries: entries.map((entry) => {
        if (entry.kind !== "op") return entry
        const results = replaced?.get(entry.id)
        return results === undefined ? entry : { ...entry, results }
      })
    }
  }
}
