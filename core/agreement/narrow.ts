// Which values of a run have passed a grid coarser than float32, on a wire or in a tensor: two machines that differ in the
// last bit before it may differ by a step of that grid after. Follows what ops read and write; knows nothing of values.
import type { Journal, JournalEntry } from "../laws/journal.ts"
import type { Dtype, Tensor } from "../machine/tensor.ts"

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

/** Coarsest grid that values have passed; float32 where they passed none. */
export type Grid = Dtype

const coarser = (one: Grid, other: Grid): Grid => (mantissaBits[other] < mantissaBits[one] ? other : one)

const isDtype = (name: unknown): name is Dtype => typeof name === "string" && name in mantissaBits

type OpEntry = Extract<JournalEntry, { readonly kind: "op" }>

/** What an op itself does to precision: the dtype its values travel in, and the dtypes they are written in. */
const gridOf = ({ op }: OpEntry): Grid => {
  const wire = op.attributes["wire"]
  const travelling: Grid = isDtype(wire) ? wire : "float32"
  return op.writes.reduce((grid, { dtype }) => (dtype === "int32" ? grid : coarser(grid, dtype)), travelling)
}

/** For each rank's journal, entry by entry, the grid of what an op wrote or a read returned; and at the end, by tensor. */
interface Grids {
  readonly atEntry: (rank: number, entry: number) => Grid
  readonly atEnd: (rank: number, tensor: Tensor) => Grid
}

/**
 * Members of a collective pass on what any of them put in: the n-th collective of the same ranks is one on all of them. What
 * travels backward in one pass over the ranks is found in the next, until nothing changes.
 */
export const narrowed = (journals: ReadonlyArray<Journal>): Grids => {
  const collectives = new Map<string, Grid>()
  let entries = new Map<number, ReadonlyArray<Grid>>()
  let ends = new Map<number, ReadonlyMap<number, Grid>>()
  for (let changed = true; changed;) {
    changed = false
    entries = new Map()
    ends = new Map()
    for (const journal of journals) {
      const grids = new Map<number, Grid>()
      const counts = new Map<string, number>()
      const gridBehind = (tensors: ReadonlyArray<Tensor>): Grid =>
        tensors.reduce<Grid>((grid, { id }) => coarser(grid, grids.get(id) ?? "float32"), "float32")
      const list: Array<Grid> = []
      for (const entry of journal.entries) {
        let grid: Grid = "float32"
        if (entry.kind === "op") {
          grid = coarser(gridOf(entry), gridBehind(entry.op.reads))
          const { group } = entry.op
          if (group !== undefined) {
            const members = group.ranks.join()
            const count = counts.get(members) ?? 0
            counts.set(members, count + 1)
            const key = `${members} ${count}`
            const known = collectives.get(key) ?? "float32"
            grid = coarser(known, grid)
            if (grid !== known) {
              collectives.set(key, grid)
              changed = true
            }
          }
          // An op may leave part of what it writes as it was.
          for (const tensor of entry.op.writes) grids.set(tensor.id, coarser(grid, gridBehind([tensor])))
        } else if (entry.kind === "read") grid = gridBehind([entry.tensor])
        list.push(grid)
      }
      entries.set(journal.rank, list)
      ends.set(journal.rank, grids)
    }
  }
  return {
    atEntry: (rank, entry) => entries.get(rank)?.[entry] ?? "float32",
    atEnd: (rank, { id }) => ends.get(rank)?.get(id) ?? "float32"
  }
}
