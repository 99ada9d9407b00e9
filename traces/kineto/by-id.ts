// Numbers by the ids that profilers count up, and rows in order: in arrays where Maps and comparisons take most of an import.

const before = 1024

/** A number for each id of at least 0; what was never set is undefined. Ids that are no small whole numbers are kept too. */
export class ById {
  readonly #dense: Float64Array
  /** The id that stands first in the array: a little before the first that was set, for processes count on. */
  #first = -1
  readonly #sparse = new Map<number, number>()

  /** `count`: about how many ids there will be, or more. */
  constructor(count: number) {
    this.#dense = new Float64Array(2 * count + 2 * before).fill(Number.NaN)
  }

  get(id: number): number | undefined {
    const value = this.#dense[id - this.#first]
    if (value === undefined) return this.#sparse.get(id)
    return Number.isNaN(value) ? undefined : value
  }

  set(id: number, value: number): void {
    if (this.#first < 0) this.#first = Math.max(0, Math.floor(id) - before)
    const at = id - this.#first
    if (at >= 0 && at < this.#dense.length && Number.isInteger(at)) this.#dense[at] = value
    else this.#sparse.set(id, value)
  }
}

/** The rows 0 to `count` - 1 by `compare`, which must tell any two apart; at once where they are in order already. */
export const sortedRows = (count: number, compare: (a: number, b: number) => number): Int32Array => {
  const rows = new Int32Array(count)
  let inOrder = true
  for (let row = 0; row < count; row++) {
    rows[row] = row
    inOrder &&= row === 0 || compare(row - 1, row) < 0
  }
  return inOrder ? rows : rows.toSorted(compare)
}
