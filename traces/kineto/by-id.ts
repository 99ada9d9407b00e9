// Rows by the ids that profilers count up, and rows in order: in arrays where Maps and comparisons take most of an import.

const before = 1024

/** A row or a count (below 2^31 - 1) for each id of at least 0; what was never set is undefined. Ids that are no small whole numbers are kept too. */
export class ById {
  /** Each number + 1; 0 where none was set, so that pages never touched cost nothing. */
  readonly #dense: Int32Array
  /** The id that stands first in the array: a little before the first that was set, for processes count on. */
  #first = -1
  readonly #sparse = new Map<number, number>()

  /** `count`: about how many ids there will be, or more. */
  constructor(count: number) {
    this.#dense = new Int32Array(2 * count + 2 * before)
  }

  get(id: number): number | undefined {
    const value = this.#dense[id - this.#first]
    if (value === undefined) return this.#sparse.get(id)
    return value === 0 ? undefined : value - 1
  }

  set(id: number, value: number): void {
    if (this.#first < 0) this.#first = Math.max(0, Math.floor(id) - before)
    const at = id - this.#first
    if (at >= 0 && at < this.#dense.length && Number.isInteger(at)) this.#dense[at] = value + 1
    else this.#sparse.set(id, value)
  }
}

/**
 * The rows 0 to `count` - 1 by `compare`, which must tell any two apart. Runs that are in order already are merged, so rows that
 * nearly are cost little; in place of a copy of objects, as the engine's own sort makes.
 */
export const sortedRows = (count: number, compare: (a: number, b: number) => number): Int32Array => {
  let rows = new Int32Array(count)
  /** Where each run begins, and the end of the last. */
  let runs: Array<number> = []
  for (let row = 0; row < count; row++) {
    rows[row] = row
    if (row === 0 || compare(row - 1, row) > 0) runs.push(row)
  }
  runs.push(count)
  let other = runs.length > 2 ? new Int32Array(count) : rows
  while (runs.length > 2) {
    const merged: Array<number> = []
    for (let run = 0; run + 1 < runs.length; run += 2) {
      merged.push(runs[run]!)
      mergeRuns(rows, other, runs[run]!, runs[run + 1]!, runs[run + 2] ?? runs[run + 1]!, compare)
    }
    merged.push(count)
    runs = merged
    ;[rows, other] = [other, rows]
  }
  return rows
}

/** Merges `rows[from, middle)` and `rows[middle, to)`, each in order, into `into[from, to)`. */
const mergeRuns = (
  rows: Int32Array,
  into: Int32Array,
  from: number,
  middle: number,
  to: number,
  compare: (a: number, b: number) => number
): void => {
  let left = from
  let right = middle
  let at = from
  while (left < middle && right < to) {
    const a = rows[left]!
    const b = rows[right]!
    if (compare(a, b) <= 0) {
      into[at++] = a
      left++
    } else {
      into[at++] = b
      right++
    }
  }
  into.set(left < middle ? rows.subarray(left, middle) : rows.subarray(right, to), at)
}
