// What a real run chose by scores, put into a simulated one: the next token, or what stays in a cache. Where scores lie as close to each
// other as rounding, two machines take different ones, and all that comes of it is another tensor. So each choice is held to what the
// kernel's reference can choose of the simulated run's own scores, each off as far as values may be. Such a tie is counted, and the
// simulated run goes on with the real one's choice; what no scores within reach choose is a disagreement. Knows neither machine.
import { evaluate } from "../kernels/evaluate.ts"
import { roundInPlace } from "../kernels/rounding.ts"
import type { Journal } from "../laws/journal.ts"
import type { ComputedOp, OnOp, Op, OpId } from "../machine/op.ts"
import type { TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"
import { chooses, narrowed } from "./narrow.ts"
import { heldOps, ReplacedResults, type HeldOp } from "./replaced.ts"
import { isSame } from "./turned.ts"
import { describe, gridStep, mayBeOff, type Tolerance } from "./values.ts"

/** What two runs chose by scores. */
export interface Chosen {
  /** Scores that were taken, over all ranks and ops. */
  readonly choices: number
  /** Of these, how many the simulated run alone would not have taken. */
  readonly turned: number
  readonly disagreement: Disagreement | undefined
}

/** A choice in the real run, and what it left. */
type Recorded = HeldOp<ReadonlyArray<TensorData>>

/** Holds a real run's choices to a simulated run, which goes on with them. */
export class ChosenValues {
  readonly #tolerance: Tolerance
  readonly #recorded: ReadonlyMap<number, ReadonlyMap<OpId, Recorded>>
  readonly #grids: ReturnType<typeof narrowed>
  readonly #replaced = new ReplacedResults()
  #choices = 0
  #turned = 0
  #disagreement: Disagreement | undefined

  /** `journals`: of the real run, with what it chose; without that nothing is held, or replaced. */
  constructor(journals: ReadonlyArray<Journal>, tolerance: Tolerance) {
    this.#tolerance = tolerance
    this.#grids = narrowed(journals, tolerance.sums)
    this.#recorded = heldOps(journals, ({ op, results }) => (chooses(op) ? results : undefined))
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
      if (found === undefined) this.#replaced.put(rank, id, outputData, settled(computed, recorded.kept))
      else {
        const message = `${describe(rank, op.writes[choiceOf(op)]!)}, after op ${id} "${op.label}": simulated ${found}`
        this.#disagreement ??= { kind: "values", rank, op: id, message }
      }
    }
  }

  /** Counts what was chosen, and otherwise; the first element that may not be what the real run has, as a phrase. */
  #firstBeyond(
    { rank, op, inputData, outputData }: ComputedOp,
    { at, kept: results }: Recorded
  ): string | undefined {
    const choice = choiceOf(op)
    const [scores, here, there] = [inputData[0]!, outputData[choice]!, results[choice]!]
    const takenBy = (chosen: TensorData): ReadonlyArray<number> =>
      op.kernel.taken!(op.reads, op.attributes, chosen, scores)
    const [ours, theirs] = [takenBy(here), takenBy(there)]
    this.#choices += ours.length
    if (here.every((value, i) => value === there[i])) return undefined
    if (op.kernel.settle === undefined) {
      const own = new Set(ours)
      for (const one of theirs) if (!own.has(one)) this.#turned++
    } else for (const [i, one] of theirs.entries()) if (one !== ours[i]) this.#turned++
    const off = mayBeOff(op.reads[0]!, scores, this.#tolerance, this.#grids.crossingAt(rank, at)!.reads[0]!)
    const list = op.kernel.settle === undefined ? undefined : op.writes[choice]!.shape.at(-1)!
    const chosen = op.writes.map(({ elements, dtype }) =>
      dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
    )
    evaluate(op.kernel, op.reads, [favouring(scores, theirs, off, list)], op.writes, chosen, op.attributes)
    const first = chosen[choice]!.findIndex((value, i) => value !== there[i])
    return first < 0
      ? undefined
      : `element ${first} is ${here[first]}; executed ${there[first]}, which no scores choose that are off as far as they may be`
  }
}

/** Which of its outputs is the choice. */
const choiceOf = ({ writes }: Op): number => writes.findIndex(({ dtype }) => dtype === "int32")

/**
 * Scores within reach of those, of which taken ones are as high as they may be, and all else as low: if these do not choose them, none
 * do. Where a choice is in order, `list` by `list`, each is also below the one before it, as far as it may be.
 */
const favouring = (
  scores: TensorData,
  taken: ReadonlyArray<number>,
  off: (element: number) => number,
  list: number | undefined
): TensorData => {
  // What is left out by an infinity, and a NaN, are nowhere near anything.
  const isNear = (i: number): boolean => Math.abs(scores[i]!) < Infinity
  const moved = scores.map((score, i) => (isNear(i) ? score - off(i) : score))
  let most = Infinity
  for (const [at, i] of taken.entries()) {
    if (list !== undefined && at % list === 0) most = Infinity
    if (!isNear(i)) continue
    const least = scores[i]! - off(i)
    moved[i] = Math.max(least, Math.min(scores[i]! + off(i), most))
    if (list !== undefined) most = moved[i]! - gridStep("float32") * Math.abs(moved[i]!)
  }
  return moved
}

/** What an op leaves that has chosen so, by its own scores. */
const settled = (
  { op, inputData, outputData }: ComputedOp,
  results: ReadonlyArray<TensorData>
): ReadonlyArray<TensorData> => {
  const { kernel, reads, writes, attributes } = op
  const choice = choiceOf(op)
  const outputs = outputData.map((data, i) => (i === choice ? results[i]! : data.slice()))
  if (kernel.settle === undefined) return outputs
  kernel.settle(inputData, outputs, attributes, {
    inputs: reads.map(({ shape }) => shape),
    outputs: writes.map(({ shape }) => shape),
    outputDtypes: writes.map(({ dtype }) => dtype)
  })
  for (const [index, { dtype }] of writes.entries()) roundInPlace(outputs[index]!, dtype)
  return outputs
}
