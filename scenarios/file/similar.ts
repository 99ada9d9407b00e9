// Which known word a mistyped one was meant to be.

/** Insertions, deletions, changes and swaps of neighbours that lead from one word to the other. */
const editDistance = (a: string, b: string): number => {
  let beforeLast: ReadonlyArray<number> = []
  let last: ReadonlyArray<number> = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      let best = Math.min(changed, last[j]! + 1, row[j - 1]! + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, beforeLast[j - 2]! + 1)
      row.push(best)
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}

const longestCompared = 64

/** Words near enough to be what was meant, nearest first; case counts little, a shared beginning or end much. */
export const similarTo = (word: string, known: Iterable<string>): ReadonlyArray<string> => {
  const lower = word.slice(0, longestCompared).toLowerCase()
  return [...new Set(known)]
    .flatMap((candidate) => {
      const other = candidate.toLowerCase()
      const contained =
        Math.min(lower.length, other.length) >= 3 && (other.includes(lower) || lower.includes(other))
      const most = contained ? Infinity : Math.max(1, Math.floor(other.length / 3))
      // No distance is less than that of the lengths.
      if (Math.abs(lower.length - other.length) > most) return []
      const distance = editDistance(lower, other)
      return distance <= most ? [{ candidate, distance }] : []
    })
    .toSorted((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1))
    .map(({ candidate }) => candidate)
}

/** `; did you mean "x"?`, or nothing. */
export const didYouMean = (word: string, known: Iterable<string>): string => {
  const [nearest] = similarTo(word, known)
  return nearest === undefined || nearest === word ? "" : `; did you mean "${nearest}"?`
}
