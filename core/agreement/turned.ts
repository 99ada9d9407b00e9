// What came over narrow wires in a real run, put into a simulated one. Machines that differ in the last bit before such a wire round
// single values to different sides behind it: these have turned, and all that is computed of them differs from then on. So each result
// is held to what may come of the simulated run's own inputs, and then takes the place of the simulated one: what turned is counted, and
// moves nothing else. What no inputs within reach explain is a disagreement. Knows neither machine.
import type { Member } from "../kernels/evaluate.ts"
import { roundInPlace } from "../kernels/rounding.ts"
import type { Journal } from "../laws/journal.ts"
import type { ComputedCollective, OnCollective } from "../machine/collective-order.ts"
import type { Op } from "../machine/op.ts"
import type { Tensor, TensorData } from "../machine/tensor.ts"
import type { Disagreement } from "./disagreement.ts"
import {
  comesNarrow,
  isNarrow,
  narrowed,
  nothing,
  resultsIn,
  roundingsOf,
  scalingOf,
  wireOf,
  type OpEntry,
  type Passed
} from "./narrow.ts"
import { ReplacedResults } from "./replaced.ts"
import { describe, gapBetween, mayBeOff, ofScaledLoss, type Tolerance } from "./values.ts"
import { acrossWire, type Interval } from "./wire-interval.ts"

/** What narrow wires brought two runs. */
export interface Turned {
  /** Elements that came over one, over all ranks. */
  readonly elements: number
  /** Of these, how many were rounded to another side: further apart than what was never rounded may be. */
  readonly turned: number
  readonly disagreement: Disagreement | undefined
}

/** A member's op in the real run: where it is in its rank's journal, and what it left. */
interface Recorded {
  readonly at: number
  readonly entry: OpEntry
  readonly results: ReadonlyArray<TensorData>
}

/** What members got, tensor by tensor. */
type PerMember<T> = ReadonlyArray<ReadonlyArray<T>>

const keyOf = (rank: number, group: string, position: number): string => `${rank} ${position} ${group}`

/** Holds a real run's results of narrow wires to a simulated run, which goes on with them. */
export class TurnedValues {
  readonly #tolerance: Tolerance
  readonly #recorded = new Map<string, Recorded>()
  readonly #scalings: ReadonlyMap<number, Tensor | undefined>
  readonly #grids: ReturnType<typeof narrowed>
  readonly #replaced = new ReplacedResults()
  #elements = 0
  #turned = 0
  #disagreement: Disagreement | undefined

  /** `journals`: of the real run, with the results of what came over narrow wires; without them nothing is held, or replaced. */
  constructor(journals: ReadonlyArray<Journal>, tolerance: Tolerance) {
    this.#tolerance = tolerance
    this.#grids = narrowed(journals, tolerance.sums)
    this.#scalings = new Map(journals.map((journal) => [journal.rank, scalingOf(journal)]))
    for (const { rank, entries } of journals) {
      const positions = new Map<string, number>()
      for (const [at, entry] of entries.entries()) {
        if (entry.kind !== "op" || entry.op.group === undefined) continue
        const { name } = entry.op.group
        const position = positions.get(name) ?? 0
        positions.set(name, position + 1)
        const results = resultsIn(entry)
        if (results !== undefined) this.#recorded.set(keyOf(rank, name, position), { at, entry, results })
      }
    }
  }

  get found(): Turned {
    return { elements: this.#elements, turned: this.#turned, disagreement: this.#disagreement }
  }

  withResults(journal: Journal): Journal {
    return this.#replaced.withResults(journal)
  }

  readonly onCollective: OnCollective = (computed) => {
    const { group, position, ranks, ops, members } = computed
    if (!comesNarrow(ops[0]!)) return undefined
    const recorded: Array<Recorded> = []
    for (const [i, rank] of ranks.entries()) {
      const one = this.#recorded.get(keyOf(rank, group, position))
      // Where the runs have parted there is nothing to compare.
      if (one === undefined || !isSame(one.entry.op, ops[i]!)) return undefined
      recorded.push(one)
    }
    const bounds = this.#boundsOf(computed, recorded)
    return () => {
      for (const [i, rank] of ranks.entries()) {
        const { entry, results } = recorded[i]!
        this.#hold(rank, recorded[i]!, members[i]!, bounds[i]!, this.#toleranceOf(computed, rank))
        this.#replaced.put(rank, entry.id, members[i]!.outputData, results)
      }
    }
  }

  /** For plain gradients, and for those of a scaled loss. */
  #toleranceOf({ valuesOf }: ComputedCollective, rank: number): (scaled: boolean) => Tolerance {
    const scaling = this.#scalings.get(rank)
    const scaled = ofScaledLoss(this.#tolerance, scaling && valuesOf(rank, scaling)[0])
    return (isScaled) => (isScaled ? scaled : this.#tolerance)
  }

  /** Between which values results lie, by how far inputs may be off. */
  #boundsOf(computed: ComputedCollective, recorded: ReadonlyArray<Recorded>): PerMember<Interval> {
    const { ranks, ops, members } = computed
    const sent = members.map(({ inputData }, i): ReadonlyArray<Interval> => {
      const rank = ranks[i]!
      const toleranceOf = this.#toleranceOf(computed, rank)
      const { reads } = this.#grids.crossingAt(rank, recorded[i]!.at)!
      return inputData.map((data, index) => {
        const passed = reads[index]!
        const off = mayBeOff(ops[i]!.reads[index]!, data, toleranceOf(passed.scaled), passed)
        return acrossWire(data, off, wireOf(ops[i]!))
      })
    })
    const combined = (end: keyof Interval): PerMember<TensorData> =>
      combine(
        computed,
        sent.map((inputs) => inputs.map((interval) => interval[end]))
      )
    const [low, high] = [combined("low"), combined("high")]
    return low.map((outputs, i) => outputs.map((least, index) => ({ low: least, high: high[i]![index]! })))
  }

  #hold(
    rank: number,
    { at, entry: { id, op }, results }: Recorded,
    { outputData }: Member,
    bounds: ReadonlyArray<Interval>,
    toleranceOf: (scaled: boolean) => Tolerance
  ): void {
    const { reads, result } = this.#grids.crossingAt(rank, at)!
    const tolerance = toleranceOf(result.scaled)
    // What sums have that are rounded after each member is no input's.
    const roundings = roundingsOf(op, tolerance.sums)
    const summed = roundings > 1 ? { ...nothing, grid: wireOf(op), roundings } : nothing
    for (const [index, tensor] of op.writes.entries()) {
      const [simulated, executed] = [outputData[index]!, results[index]!]
      const found =
        this.#firstBeyond(tensor, simulated, executed, bounds[index]!, tolerance, summed) ??
        // Of what was rounded before, or more than once, single elements may be far off, but not all.
        (summed !== nothing || reads.some(({ grid }) => isNarrow(grid))
          ? beyond(gapBetween(tensor, simulated, executed, tolerance, result))
          : undefined)
      if (found === undefined) continue
      const message = `${describe(rank, tensor)}, over a wire of ${wireOf(op)} (op ${id} "${op.label}"): simulated ${found}`
      this.#disagreement ??= { kind: "values", rank, op: id, message }
    }
  }

  /** Counts what turned; the first element that is not where it may be, as a phrase. */
  #firstBeyond(
    tensor: Tensor,
    simulated: TensorData,
    executed: TensorData,
    { low, high }: Interval,
    tolerance: Tolerance,
    summed: Passed
  ): string | undefined {
    const off = mayBeOff(tensor, simulated, tolerance, summed)
    let first: string | undefined
    for (let i = 0; i < simulated.length; i++) {
      const [here, there, margin] = [simulated[i]!, executed[i]!, off(i)]
      this.#elements++
      if (Object.is(here, there) || Math.abs(here - there) <= margin) continue
      this.#turned++
      if (there >= low[i]! - margin && there <= high[i]! + margin) continue
      first ??= `element ${i} is ${here}, ${low[i]} to ${high[i]} by how far its inputs may be off; executed ${there}`
    }
    return first
  }
}

const beyond = ({ ratio, message }: ReturnType<typeof gapBetween>): string | undefined =>
  ratio > 1 ? message : undefined

/** Whether both runs submitted this. */
export const isSame = (one: Op, other: Op): boolean =>
  one.kernel.name === other.kernel.name &&
  one.label === other.label &&
  one.writes.length === other.writes.length &&
  one.writes.every(
    ({ id, elements }, i) => id === other.writes[i]!.id && elements === other.writes[i]!.elements
  )

/** What a collective makes of what has arrived; sums and moves, so of the least the least and of the most the most. */
const combine = (
  { kernel, members }: ComputedCollective,
  arrived: PerMember<TensorData>
): PerMember<TensorData> => {
  const outputs = members.map(({ outputData }) => outputData.map((data) => data.slice()))
  kernel.combine(
    arrived,
    outputs,
    members.map(({ attributes }) => ({ ...attributes, wire: "" }))
  )
  for (const [i, { outputs: operands }] of members.entries())
    for (const [index, { dtype }] of operands.entries()) roundInPlace(outputs[i]![index]!, dtype)
  return outputs
}
