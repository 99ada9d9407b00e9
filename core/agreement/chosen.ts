// What a real run chose by scores, put into a simulated one: the next token, or what stays in a cache. Where scores lie as close to each
// other as rounding, two machines take different ones, and all that comes of it is another tensor. So each choice is held to what the
// kernel's reference can choose of the simulated run's own scores, each off as far as values may be. Such a tie is counted, and the
// simulated run goes on with the real one's choice; what no scores within reach choose is a disagreement. Knows neither machine.
import { evaluate } from "../kernels/evaluate.ts"
import type { Journal } from "../laws/journal.ts"
import type { ComputedOp, OnOp, OpId } from "../machine/op.ts"
import type { TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"
import { chooses, narrowed, type OpEntry } from "./narrow.ts"
import { ReplacedResults } from "./replaced.ts"
import { isSame } from "./turned.ts"
import { describe, mayBeOff, type Tolerance } from "./values.ts"

/** What two runs chose by scores. */
export interface Chosen {
  /** Scores that were taken, over all ranks and ops. */
  readonly choices: number
  /** Of these, how many the simulated run alone would not have taken. */
  readonly turned: number
  readonly disagreement: Disagreement | undefined
}

/** A choice in the real run: where it is in its rank's journal, and what it left. */
interface Recorded {
  readonly at: number
  readonly entry: OpEntry
  readonly results: ReadonlyArray<TensorData>
}

/** Holds a real run's choices to a simulated run, which goes on with them. */
export class ChosenValues {
  readonly #tolerance: Tolerance
  readonly #recorded = new Map<number, Map<OpId, Recorded>>()
  readonly #grids: ReturnType<typeof narrowed>
  readonly #replaced = new ReplacedResults()
  #choices = 0
  #turned = 0
  #disagreement: Disagreement | undefined

  /** `journals`: of the real run, with what it chose; without that nothing is held, or replaced. */
  constructor(journals: ReadonlyArray<Journal>, tolerance: Tolerance) {
    this.#tolerance = tolerance
    this.#grids = narrowed(journals)
    for (const { rank, entries } of journals) {
      const own = new Map<OpId, Recorded>()
      this.#recorded.set(rank, own)
      for (const [at, entry] of entries.entries()) {
        if (entry.kind !== "op" || !chooses(entry.op) || entry.results === undefined) continue
        own.set(entry.id, { at, entry, results: entry.results })
      }
    }
  }

  get found(): Chosen {
    return { choices: this.#choices, turned: this.#turned, disagreement: this.#disagreement }
  }

  withResults(journal: Journal): Journal {
    return this.#replaced.withResults(journal)
  }

  readonly onOp: OnOp = (computed) => {
    const { rank, id, op, outputData } = computed
    if (!chooses(op)) return undefined
    const recorded = this.#recorded.get(rank)?.get(id)
    // Where the runs have parted there is nothing to compare.
    if (recorded === undefined || !isSame(recorded.entry.op, op)) return undefined
    return () => {
      const found = this.#firstBeyond(computed, recorded)
      // Of what no scores choose, no more need come: it may be no choice at all.
      if (found === undefined) this.#replaced.put(rank, id, outputData, recorded.results)
      else {
        const message = `${describe(rank, op.writes[0]!)}, after op ${id} "${op.label}": simulated ${found}`
        this.#disagreement ??= { kind: "values", rank, op: id, message }
      }
    }
  }

  /** Counts what was chosen, and otherwise; the first element that may not be what the real run has, as a phrase. */
  #firstBeyond(
    { rank, op, inputData, outputData }: ComputedOp,
    { at, results }: Recorded
  ): string | undefined {
    const [scores, here, there] = [inputData[0]!, outputData[0]!, results[0]!]
    const takenBy = (choice: TensorData): ReadonlyArray<number> =>
      op.kernel.taken!(op.reads, op.attributes, choice, scores)
    const ours = new Set(takenBy(here))
    this.#choices += ours.size
    if (here.every((value, i) => value === there[i])) return undefined
    const theirs = new Set(takenBy(there))
    for (const one of theirs) if (!ours.has(one)) this.#turned++
    // If these do not choose it, no scores within reach do: what was taken as high as it may be, and all else as low.
    const off = mayBeOff(op.reads[0]!, scores, this.#tolerance, this.#grids.crossingAt(rank, at)!.reads[0]!)
    const favouring = scores.map((score, i) => {
      // What is left out by an infinity, and a NaN, are nowhere near anything.
      if (!(Math.abs(score) < Infinity)) return score
      return theirs.has(i) ? score + off(i) : score - off(i)
    })
    const chosen = new Int32Array(here.length)
    evaluate(op.kernel, op.reads, [favouring], op.writes, [chosen], op.attributes)
    const first = chosen.findIndex((value, i) => value !== there[i])
    return first < 0
      ? undefined
      : `element ${first} is ${here[first]}; executed ${there[first]}, which no scores choose that are off as far as they may be`
  }
}
