// Stretches of time: without overlaps, and how much of others they cover. Knows nothing of what happens in them.

export interface Interval {
  readonly start: number
  readonly end: number
}

/** The same stretches of time without overlaps, ascending. */
export const union = (intervals: ReadonlyArray<Interval>): ReadonlyArray<Interval> => {
  const merged: Array<{ start: number; end: number }> = []
  for (const { start, end } of intervals.toSorted((a, b) => a.start - b.start)) {
    const last = merged.at(-1)
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end)
    else merged.push({ start, end })
  }
  return merged
}

/** Disjoint ascending stretches of time in columns: those of a whole device would be an object for every kernel. */
export interface Stretches {
  readonly starts: Float64Array
  readonly ends: Float64Array
  readonly length: number
}

/** As `union`, of stretches that are given by start, the `i`th from `startOf(i)` to `endOf(i)`. */
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

/** How much of [from, to) disjoint ascending stretches cover, for questions in ascending order. */
export const coverage = (intervals: ReadonlyArray<Interval>): ((from: number, to: number) => number) => {
  let passed = 0
  return (from, to) => {
    while (passed < intervals.length && intervals[passed]!.end <= from) passed++
    let covered = 0
    for (let i = passed; i < intervals.length && intervals[i]!.start < to; i++)
      covered += Math.max(0, Math.min(to, intervals[i]!.end) - Math.max(from, intervals[i]!.start))
    return covered
  }
}
