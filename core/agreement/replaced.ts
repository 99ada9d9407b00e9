// Results that a simulated run has of the real one: put in where an op would leave its own, and told again in its journal.
import type { Journal } from "../laws/journal.ts"
import type { OpId } from "../machine/op.ts"
import type { TensorData } from "../machine/tensor.ts"

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
