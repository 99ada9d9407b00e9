// Stretches of time: without overlaps, and how much of others they cover. Knows nothing of what happens in them.

export interface Interval {
  readonly start: number
  readonly end: number
}

/** Disjoint ascending stretches of time in columns: those of a whole device would be an object for every kernel. */
export interface Stretches {
  readonly starts: Float64Array
  readonly ends: Float64Array
  readonly length: number
}

/** What `count` stretches of time cover, given by start: the `i`th from `startOf(i)` to `endOf(i)`. */
export const unionInOrder = (
  count: number,
  startOf: (i: number) => number,
  endOf: (i: number) => number
): Stretches => {
  const starts = new Float64Array(count)
  const ends = new Float64Array(count)
  let length = 0
  for (let i = 0; i < count; i++) {
    const start = startOf(i)
    const end = endOf(i)
    if (length > 0 && start <= ends[length - 1]!) ends[length - 1] = Math.max(ends[length - 1]!, end)
    else {
      starts[length] = start
      ends[length++] = end
    }
  }
  return { starts, ends, length }
}

/** The same of stretches in any order. */
export const union = (intervals: ReadonlyArray<Interval>): Stretches => {
  const sorted = intervals.toSorted((a, b) => a.start - b.start)
  return unionInOrder(
    sorted.length,
    (i) => sorted[i]!.start,
    (i) => sorted[i]!.end
  )
}

/** How much time stretches cover. */
export const totalOf = ({ starts, ends, length }: Stretches): number => {
  let total = 0
  for (let i = 0; i < length; i++) total += ends[i]! - starts[i]!
  return total
}

/** How much of [from, to) stretches cover, for questions in ascending order. */
export const coverage = ({ starts, ends, length }: Stretches): ((from: number, to: number) => number) => {
  let passed = 0
  return (from, to) => {
    while (passed < length && ends[passed]! <= from) passed++
    let covered = 0
    for (let i = passed; i < length && starts[i]! < to; i++)
      covered += Math.max(0, Math.min(to, ends[i]!) - Math.max(from, starts[i]!))
    return covered
  }
}
