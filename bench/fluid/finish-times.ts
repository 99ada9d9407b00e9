// Compares two lists of finish times, `kind,name,finish` with a header, as bench:fluid and simgrid_fluid.cpp write them.

interface Difference {
  /** Largest relative difference; Infinity when the lists are not of the same activities in the same order. */
  readonly worst: number
  /** Where: "kind,name". */
  readonly activity: string
}

const rowsOf = (csv: string): ReadonlyArray<readonly [activity: string, seconds: number]> =>
  csv
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((row) => {
      const comma = row.lastIndexOf(",")
      return [row.slice(0, comma), Number(row.slice(comma + 1))]
    })

export const worstDifference = (ours: string, theirs: string): Difference => {
  const expected = rowsOf(theirs)
  const rows = rowsOf(ours)
  let found: Difference = { worst: 0, activity: "" }
  for (let i = 0; i < Math.max(rows.length, expected.length); i++) {
    const [activity, seconds] = rows[i] ?? ["nothing", NaN]
    const [name, reference] = expected[i] ?? ["nothing", NaN]
    if (activity !== name) return { worst: Infinity, activity: `${activity} for ${name}` }
    // Both at time 0 are equal; a missing or unreadable number is a difference.
    const relative = Math.abs(seconds - reference) / Math.abs(reference)
    const difference = seconds === reference ? 0 : Number.isNaN(relative) ? Infinity : relative
    if (difference > found.worst) found = { worst: difference, activity }
  }
  return found
}
