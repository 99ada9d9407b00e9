// Updates of parameters in a real run, put into a simulated one. What two machines round differently in a gradient moves parameters
// apart: a little, or all the way where the gradient is all rounding and an update divides it by its own size (AdamW and a key's bias);
// and every step moves on from there. So what an update found is held to the simulated run's own, and what it left to what its kernel's
// reference makes of just what it found. Then the simulated run goes on with it: a step begins with the same bits on both machines,
// and what the update had of it is known to some steps of float32. Knows neither machine.
import { evaluate } from "../kernels/evaluate.ts"
import { roundInPlace } from "../kernels/rounding.ts"
import type { Journal } from "../laws/journal.ts"
import type { ComputedOp, OnOp, Op, OpId } from "../machine/op.ts"
import type { Tensor, TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"
import { isNarrow, isSkippedBy, narrowed, nothing, readsScale, scalingApart, updates } from "./narrow.ts"
import { heldOps, ReplacedResults, type HeldOp } from "./replaced.ts"
import { isSame } from "./turned.ts"
import { describe, gapBetween, gridStep, mayBeOff, ofScaledLoss, type Tolerance } from "./values.ts"

/** What updates made of parameters in two runs. */
export interface Updated {
  /** Elements of parameters that updates wrote, over all ranks and steps. */
  readonly elements: number
  /** Of these, how many the simulated run's own gradients would have moved elsewhere: further apart than float32 may be. */
  readonly turned: number
  readonly disagreement: Disagreement | undefined
}

/** An update in the real run, what it found and what it left. */
type Recorded = HeldOp<{
  readonly inputs: ReadonlyArray<TensorData>
  readonly results: ReadonlyArray<TensorData>
}>

/**
 * How many steps of float32 a result may be off that is computed of the same bits, counted at the largest of what it is a sum of:
 * some ten roundings, of which a machine that computes in float32 may do each.
 */
const resultSteps = 32

/** Holds a real run's updates to a simulated run, which goes on with them. */
export class UpdatedValues {
  readonly #tolerance: Tolerance
  readonly #recorded: ReadonlyMap<number, ReadonlyMap<OpId, Recorded>>
  readonly #grids: ReturnType<typeof narrowed>
  /** By rank, what its last loss was scaled by. */
  readonly #scales = new Map<number, number>()
  readonly #replaced = new ReplacedResults()
  #elements = 0
  #turned = 0
  #disagreement: Disagreement | undefined

  /** `journals`: of the real run, with what updates found and left; without that nothing is held, or replaced. */
  constructor(journals: ReadonlyArray<Journal>, tolerance: Tolerance) {
    this.#tolerance = tolerance
    this.#grids = narrowed(journals, tolerance.sums)
    this.#recorded = heldOps(journals, ({ op, inputs, results }) =>
      updates(op) && inputs !== undefined && results !== undefined ? { inputs, results } : undefined
    )
  }

  get found(): Updated {
    return { elements: this.#elements, turned: this.#turned, disagreement: this.#disagreement }
  }

  withResults(journal: Journal): Journal {
    return this.#replaced.withResults(journal)
  }

  readonly onOp: OnOp = (computed) => {
    const { rank, id, op, outputData, valuesOf } = computed
    if (!updates(op)) {
      if (readsScale(op)) this.#scales.set(rank, valuesOf(op.reads.at(-1)!)[0]!)
      return undefined
    }
    const recorded = this.#recorded.get(rank)?.get(id)
    // Where the runs have parted there is nothing to compare.
    if (recorded === undefined || !isSame(recorded.entry.op, op)) return undefined
    this.#holdInputs(computed, recorded)
    this.#holdResults(computed, recorded)
    return () => {
      for (const [index, data] of outputData.entries())
        if (isParameter(op, index)) this.#count(op.writes[index]!, data, recorded.kept.results[index]!)
      this.#replaced.put(rank, id, outputData, recorded.kept.results)
    }
  }

  /** What it found is as far from the simulated run's own as values may be. */
  #holdInputs({ rank, id, op, inputData }: ComputedOp, { at, kept: { inputs } }: Recorded): void {
    if (readsScale(op)) {
      const apart = scalingApart(inputData.at(-1)!, inputs.at(-1)!)
      if (apart !== undefined) this.#tell(rank, id, `rank ${rank}, before ${nameOf(id, op)}: ${apart}`)
    }
    // A step whose gradients overflowed is left out: they may be infinite here and finite or NaN there.
    const unread = isSkipped(op, inputData) && isSkipped(op, inputs) ? gradientsOf(op) : undefined
    const { reads } = this.#grids.crossingAt(rank, at)!
    const scaled = ofScaledLoss(this.#tolerance, this.#scales.get(rank))
    for (const [index, tensor] of op.reads.entries()) {
      if (unread?.has(tensor) === true) continue
      const passed = reads[index]!
      const tolerance = passed.scaled ? scaled : this.#tolerance
      const { ratio, message } = gapBetween(tensor, inputData[index]!, inputs[index]!, tolerance, passed)
      if (ratio <= 1) continue
      this.#tell(rank, id, `${describe(rank, tensor)}, before ${nameOf(id, op)}: simulated ${message}`)
    }
  }

  /** What it left is what the kernel's reference makes of what it found. */
  #holdResults({ rank, id, op }: ComputedOp, { kept: { inputs, results } }: Recorded): void {
    const expected = op.writes.map(({ elements }) => new Float32Array(elements))
    evaluate(op.kernel, op.reads, inputs, op.writes, expected, op.attributes)
    const swings = op.kernel.swing!(op.attributes)
    const each = op.writes.length / swings.length
    for (const [index, tensor] of op.writes.entries()) {
      const [ours, theirs] = [expected[index]!, results[index]!]
      const swing = swings[Math.floor(index / each)]
      const before = inputs[op.reads.indexOf(tensor)]
      let found: string | undefined
      if (swing !== undefined && index >= each) found = shadowBeyond(tensor, results[index % each]!, theirs)
      else if (isNarrow(tensor.dtype)) {
        const passed = { ...nothing, grid: tensor.dtype, roundings: 1 }
        const { ratio, message } = gapBetween(tensor, ours, theirs, this.#tolerance, passed)
        if (ratio > 1) found = message
      } else found = resultBeyond(ours, theirs, before, swing ?? 0)
      if (found !== undefined)
        this.#tell(
          rank,
          id,
          `${describe(rank, tensor)}, after ${nameOf(id, op)}: of what it found comes ${found}`
        )
    }
  }

  #tell(rank: number, op: OpId, message: string): void {
    this.#disagreement ??= { kind: "values", rank, op, message }
  }

  #count(tensor: Tensor, simulated: TensorData, executed: TensorData): void {
    const off = mayBeOff(tensor, simulated, this.#tolerance, nothing)
    this.#elements += simulated.length
    for (const [i, value] of simulated.entries())
      if (!Object.is(value, executed[i]) && !(Math.abs(value - executed[i]!) <= off(i))) this.#turned++
  }
}

const nameOf = (id: OpId, { label }: Op): string => `op ${id} "${label}"`

/** The parameters that an update writes stand first. */
const isParameter = (op: Op, index: number): boolean =>
  index < op.writes.length / op.kernel.swing!(op.attributes).length

/** Its factor is 0: everything stays as it is. */
const isSkipped = (op: Op, inputs: ReadonlyArray<TensorData>): boolean =>
  readsScale(op) && isSkippedBy(inputs.at(-1)!)

/** What an update reads, does not write, and is not the state of the scale, which stands last. */
const gradientsOf = ({ reads, writes }: Op): ReadonlySet<Tensor> =>
  new Set(reads.filter((tensor) => tensor !== reads.at(-1) && !writes.includes(tensor)))

const differs = (one: number, other: number, margin: number): boolean =>
  !(Object.is(one, other) || Math.abs(one - other) <= margin)

/** The first element that is not what was expected, as a phrase. `before`: what it was; it moved by about `swing`, or as far as others did. */
const resultBeyond = (
  expected: TensorData,
  actual: TensorData,
  before: TensorData | undefined,
  swing: number
): string | undefined => {
  let moved = 0
  for (const [i, value] of expected.entries()) moved += Math.abs(value - (before?.[i] ?? 0))
  const least = Math.max(swing, moved / Math.max(1, expected.length))
  for (const [i, value] of expected.entries()) {
    const size = Math.max(Math.abs(value), Math.abs(before?.[i] ?? 0), least)
    const margin = resultSteps * gridStep("float32") * size
    if (differs(value, actual[i]!, margin))
      return `${value} as element ${i}; executed ${actual[i]} (allowed difference ${margin})`
  }
  return undefined
}

/** The copy of parameters in a narrower dtype is just their rounding. */
const shadowBeyond = (tensor: Tensor, parameters: TensorData, actual: TensorData): string | undefined => {
  const expected = parameters.slice()
  roundInPlace(expected, tensor.dtype)
  const first = expected.findIndex((value, i) => differs(value, actual[i]!, 0))
  return first < 0
    ? undefined
    : `${expected[first]} as element ${first}, its parameter in ${tensor.dtype}; executed ${actual[first]}`
}
