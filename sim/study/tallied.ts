// What the points of a study are warned of, each once, and how many of them it is of.
import { counted } from "../../core/units.ts"

interface Tallied {
  readonly text: string
  readonly points: number
}

/**
 * In the order in which they come. A field that has no effect is one warning however its reasons read, of which the first is told: over
 * an axis they differ in a number.
 */
export const talliedWarnings = (
  rows: ReadonlyArray<{ readonly warnings: ReadonlyArray<string> }>
): ReadonlyArray<Tallied> => {
  const found = new Map<string, { readonly texts: Set<string>; points: number }>()
  for (const { warnings } of rows) {
    const ofRow = Map.groupBy(warnings, (text) => /^\S+ has no effect: /u.exec(text)?.[0] ?? text)
    for (const [key, texts] of ofRow) {
      const one = found.get(key) ?? { texts: new Set(), points: 0 }
      found.set(key, one)
      one.points++
      for (const text of texts) one.texts.add(text)
    }
  }
  return [...found.values()].map(({ texts, points }) => ({
    text: [...texts][0]! + (texts.size > 1 ? ", and the like" : ""),
    points
  }))
}

/** "3 of 70 points", or "" of all. */
export const ofPoints = (points: number, rows: ReadonlyArray<unknown>): string =>
  points === rows.length ? "" : `${points} of ${counted(rows.length, "point")}`
