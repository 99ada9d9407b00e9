// Which values of a run have passed a grid coarser than float32, on a wire or in a tensor: two machines that differ in the
// last bit before it may differ by a step of that grid after. And which were moved since by updates that make much of little
// (`Kernel.swing`). Follows what ops read and write; knows nothing of values.
import type { Journal, JournalEntry } from "../laws/journal.ts"
import { launchedWith, type Op } from "../machine/op.ts"
import type { Dtype, Tensor, TensorData } from "../machine/tensor.ts"

/** Bits of a dtype's mantissa that are stored: neighbours at x are x * 2^-bits apart, at most. Integers: no rounding. */
export const mantissaBits: Readonly<Record<Dtype, number>> = {
  float32: 23,
  float16: 10,
  bfloat16: 7,
  float8: 3,
  float4: 0,
  mxfp4: 1,
  int8: 7,
  int32: 31
}

/**
 * How far the smallest numbers of a dtype are apart, below its smallest normal one: all of a float16 that are under 6e-5. That of
 * bfloat16 is smaller than any float32 says, and formats with a scale for each block have theirs far below the block's largest.
 */
export const leastStep = (grid: Dtype): number => (grid === "float16" ? 1 / (1 << 24) : 0)

/** Coarsest grid that values have passed; float32 where they passed none. */
type Grid = Dtype

const coarser = (one: Grid, other: Grid): Grid => (mantissaBits[other] < mantissaBits[one] ? other : one)

const isDtype = (name: unknown): name is Dtype => typeof name === "string" && name in mantissaBits

export type OpEntry = Extract<JournalEntry, { readonly kind: "op" }>

/**
 * What an op itself does to precision: the dtype its values travel in, what its factors are rounded to, and the dtypes that results are
 * written in.
 */
const gridOf = ({ op }: OpEntry): Grid => coarser(coarser(wireOf(op), factorGrid(op)), storedGrid(op.writes))

/** What values travel in. */
export const wireOf = ({ attributes: { wire } }: Op): Grid => (isDtype(wire) ? wire : "float32")

/** Whether values are rounded to a narrow grid on their way: what a real run keeps, so that a simulated one can go on with it. */
export const comesNarrow = (op: Op): boolean => isNarrow(wireOf(op))

/** Whether an op updates parameters: of it a real run keeps what it found and what it left, so that a simulated one can go on with it. */
export const updates = ({ kernel }: Op): boolean => kernel.swing !== undefined

/** Whether an op chooses by scores: what a real run chose is kept, so that a simulated one can choose the same of a tie. */
export const chooses = ({ kernel }: Op): boolean => kernel.taken !== undefined

/** What a real run keeps of an op: what it left. */
export const keepsResults = (op: Op): boolean => comesNarrow(op) || updates(op) || chooses(op)

/** TF32 has as many bits of mantissa as float16. */
const factorGrid = ({ attributes }: Pick<Op, "attributes">): Grid =>
  attributes["tf32"] === true ? "float16" : "float32"

const storedGrid = (tensors: ReadonlyArray<Tensor>): Grid =>
  tensors.reduce<Grid>((grid, { dtype }) => (dtype === "int32" ? grid : coarser(grid, dtype)), "float32")

export const isNarrow = (grid: Grid): boolean => mantissaBits[grid] < mantissaBits.float32

/**
 * How a machine adds up what members of a collective hold in 16 bits: wider, and the sum is rounded once; or each member to what was added
 * before, and every sum is rounded.
 */
export type Sums = "once" | "each"

/** Whether a machine whose sums are rounded each time does so here: of one 16-bit dtype throughout, in parts of one size. */
const mayBeRoundedEach = (op: Op): boolean => {
  const { kernel, reads, writes, attributes } = op
  if (kernel.name !== "all_reduce" && kernel.name !== "reduce_scatter") return false
  const { dtype } = writes[0]!
  const wire = wireOf(op)
  const sizes = attributes["counts"]
  return (
    (dtype === "bfloat16" || dtype === "float16") &&
    [...reads, ...writes].every((tensor) => tensor.dtype === dtype) &&
    (wire === "float32" || wire === dtype) &&
    (typeof sizes !== "string" || new Set(sizes.split(",")).size === 1)
  )
}

/**
 * How often an op may round what it computes to a narrow grid: once, but sums that a machine rounds each time as often as there is one more
 * member to add; and by what it divides them, where that is no power of two.
 */
export const roundingsOf = (op: Op, sums: Sums): number => {
  const { group, writes, attributes } = op
  if (!isNarrow(coarser(factorGrid({ attributes }), storedGrid(writes)))) return 0
  if (sums === "once" || group === undefined || !mayBeRoundedEach(op)) return 1
  const members = group.ranks.length
  const exact = attributes["reduce"] !== "avg" || Number.isInteger(Math.log2(members))
  return Math.max(1, exact ? members - 1 : members)
}

/** What values have passed. */
export interface Passed {
  readonly grid: Grid
  /** Tensors of a coarser grid one after the other, since the last update of parameters: each rounds anew. */
  readonly roundings: number
  /** How far updates that make much of little (`Kernel.swing`) may have moved an element: all of them, one way. */
  readonly swing: number
  /** They are a scaled loss's: times the first number of `scalingOf`. */
  readonly scaled: boolean
}

export const nothing: Passed = { grid: "float32", roundings: 0, swing: 0, scaled: false }

const more = (one: Passed, other: Passed): Passed =>
  coarser(one.grid, other.grid) === one.grid &&
  other.roundings <= one.roundings &&
  other.swing <= one.swing &&
  (one.scaled || !other.scaled)
    ? one
    : {
        grid: coarser(one.grid, other.grid),
        roundings: Math.max(one.roundings, other.roundings),
        swing: Math.max(one.swing, other.swing),
        scaled: one.scaled || other.scaled
      }

type Reached = ReadonlyMap<number, Passed>

/** Of a tensor: by its own name, by those of what lies in it, and by that of what it lies in (a parameter in a gathered unit). */
const passedBy = ({ id, within }: Tensor, passed: Reached, inside: Reached): Passed =>
  more(
    more(passed.get(id) ?? nothing, inside.get(id) ?? nothing),
    (within && passed.get(within.arena.id)) ?? nothing
  )

/** Of an op whose results the journal has: what its inputs have passed, and what its results would have, were they not replaced. */
interface Crossing {
  readonly reads: ReadonlyArray<Passed>
  readonly result: Passed
}

/** For each rank's journal, entry by entry, what an op's results or a read's values have passed; and at the end, by tensor. */
interface Grids {
  readonly atEntry: (rank: number, entry: number) => Passed
  readonly crossingAt: (rank: number, entry: number) => Crossing | undefined
  readonly atEnd: (rank: number, tensor: Tensor) => Passed
}

/**
 * Members of a collective pass on what any of them put in: the n-th collective of the same ranks is one on all of them. What
 * travels backward in one pass over the ranks is found in the next, until nothing changes. Results that a journal has are those of
 * the other run, too (turned.ts): there both have the same, whatever came before. `sums`: those of the real machine.
 */
export const narrowed = (journals: ReadonlyArray<Journal>, sums: Sums): Grids => {
  const collectives = new Map<string, Passed>()
  let entries = new Map<number, ReadonlyArray<Passed>>()
  let crossings = new Map<number, ReadonlyMap<number, Crossing>>()
  let ends = new Map<number, { readonly passed: Reached; readonly inside: Reached }>()
  const scalings = new Map(journals.map((journal) => [journal.rank, scalingOf(journal)?.id]))
  for (let changed = true; changed;) {
    changed = false
    entries = new Map()
    crossings = new Map()
    ends = new Map()
    for (const journal of journals) {
      const passed = new Map<number, Passed>()
      /** What lies in a tensor, by ids: of what was written there by names of its own. */
      const inside = new Map<number, Passed>()
      const counts = new Map<string, number>()
      const behind = (tensors: ReadonlyArray<Tensor>): Passed =>
        tensors.reduce<Passed>((all, tensor) => more(all, passedBy(tensor, passed, inside)), nothing)
      const write = (tensor: Tensor, value: Passed): void => {
        // The scale itself, made of the norm of scaled gradients, is no more times itself.
        if (tensor.id === scalings.get(journal.rank)) value = { ...value, scaled: false }
        passed.set(tensor.id, value)
        const arena = tensor.within?.arena.id
        if (arena !== undefined) inside.set(arena, more(inside.get(arena) ?? nothing, value))
      }
      const list: Array<Passed> = []
      const crossed = new Map<number, Crossing>()
      for (const entry of journal.entries) {
        let result = nothing
        if (entry.kind === "op") {
          const { op } = entry
          const read = behind(op.reads)
          const moves = op.kernel.moves === true || op.kernel.kind !== "compute"
          result = {
            grid: coarser(gridOf(entry), read.grid),
            roundings: read.roundings + roundingsOf(op, sums),
            swing: moves ? read.swing : 0,
            // The loss multiplies by the scale what had none; an update divides by it what had.
            scaled: readsScale(op) ? !read.scaled : read.scaled
          }
          const { group } = op
          if (group !== undefined) {
            const members = group.ranks.join()
            const count = counts.get(members) ?? 0
            counts.set(members, count + 1)
            const key = `${members} ${count}`
            const known = collectives.get(key) ?? nothing
            result = more(known, result)
            if (result !== known) {
              collectives.set(key, result)
              changed = true
            }
          }
          const replaced = resultsIn(entry) !== undefined
          /** Of a choice just that: what else comes of the scores is each machine's own. */
          const isReplaced = ({ dtype }: Tensor): boolean => replaced && (!chooses(op) || dtype === "int32")
          const ofScores = result
          if (replaced) {
            crossed.set(list.length, {
              reads: op.reads.map((tensor) => passedBy(tensor, passed, inside)),
              result
            })
            result = { ...nothing, scaled: result.scaled }
          }
          const swings = swingsOf(entry)
          for (const [index, tensor] of op.writes.entries()) {
            if (isReplaced(tensor)) {
              write(tensor, result)
              continue
            }
            if (replaced) {
              write(tensor, ofScores)
              continue
            }
            const swing = swings?.[index]
            const moved = read.swing + (swing ?? 0)
            // An update moves on from what was there, by little of what its gradient is off.
            if (swing !== undefined && isNarrow(read.grid))
              write(tensor, { ...result, roundings: 1, swing: moved })
            // An op may leave part of what it writes as it was.
            else {
              const all = more(behind([tensor]), result)
              write(tensor, swing === undefined ? all : { ...all, swing: moved })
            }
          }
        } else if (entry.kind === "read") result = behind([entry.tensor])
        list.push(result)
      }
      entries.set(journal.rank, list)
      crossings.set(journal.rank, crossed)
      ends.set(journal.rank, { passed, inside })
    }
  }
  return {
    atEntry: (rank, entry) => entries.get(rank)?.[entry] ?? nothing,
    crossingAt: (rank, entry) => crossings.get(rank)?.get(entry),
    atEnd: (rank, tensor) => {
      const end = ends.get(rank)
      return end === undefined ? nothing : passedBy(tensor, end.passed, end.inside)
    }
  }
}

/** What a journal has of an op's results; who only sends has none to keep. */
export const resultsIn = ({ op, results }: OpEntry): ReadonlyArray<TensorData> | undefined =>
  results ?? (op.writes.length === 0 && comesNarrow(op) ? [] : undefined)

/** The loss multiplies by it, an update divides. */
export const readsScale = ({ attributes }: Op): boolean => attributes["scaled"] === true

/** What a rank's loss is scaled by: the last that such an op reads. */
export const scalingOf = ({ entries }: Journal): Tensor | undefined => {
  for (const entry of entries) if (entry.kind === "op" && readsScale(entry.op)) return entry.op.reads.at(-1)
  return undefined
}

/** What `loss_scale` leaves beside the scale (core/kernels/optimizer.ts): by what gradients are multiplied, 0 to skip the step. */
export const isSkippedBy = (scaling: TensorData): boolean => scaling[1] === 0

/**
 * What two machines have decided of a scaled loss, where it is not the same, as a phrase. A scale goes by exact steps, and steps are
 * taken or skipped: no tolerance lies between.
 */
export const scalingApart = (simulated: TensorData, executed: TensorData): string | undefined => {
  const phrase = (state: TensorData): string =>
    `${isSkippedBy(state) ? "skips the step, whose gradients overflowed" : "takes the step"} (loss scale ${state[0]}, unchanged for ${state[2]} steps, ${state[3]} skipped)`
  const same =
    isSkippedBy(simulated) === isSkippedBy(executed) &&
    [0, 2, 3].every((at) => Object.is(simulated[at], executed[at]))
  return same ? undefined : `simulated ${phrase(simulated)}; executed ${phrase(executed)}`
}

/** Of an update, output by output; a kernel over lists has as many of each. */
const swingsOf = ({ op, scalars }: OpEntry): ReadonlyArray<number | undefined> | undefined => {
  const swings = op.kernel.swing?.(launchedWith(op, scalars).attributes)
  const { length } = op.writes
  return swings && op.writes.map((_, i) => swings[Math.floor((i * swings.length) / length)])
}
