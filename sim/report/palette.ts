// One colour for one algorithm, in every figure of every report. Hues that people name apart, with lightness and chroma
// searched so that the seven algorithms' colours stay apart for every kind of colour vision; a test holds them to it.
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"

export interface Colour {
  readonly light: string
  readonly dark: string
}

/** By slot; `--s0`, `--s1`, ... in the page. */
export const palette: ReadonlyArray<Colour> = [
  { light: "#888c90", dark: "#aeaea6" }, // grey
  { light: "#1c4483", dark: "#5f87f8" }, // blue
  { light: "#007569", dark: "#b2fcc6" }, // green
  { light: "#725103", dark: "#f9d029" }, // ochre
  { light: "#d85a14", dark: "#ef6e34" }, // vermilion
  { light: "#7c034a", dark: "#b073a7" }, // wine
  { light: "#0b91e2", dark: "#00cdff" }, // azure
  { light: "#4a2a7f", dark: "#a88be8" }, // violet
  { light: "#5b3a1e", dark: "#c9a27f" }, // brown
  { light: "#111418", dark: "#f2f4f7" } // ink
]

/**
 * Slot of each series key: an algorithm's own where it is the first of its kind in the study, else the next free one.
 * More series than slots repeat them.
 */
export const assignSlots = (
  series: ReadonlyArray<{ readonly key: string; readonly algorithm: string }>
): ReadonlyMap<string, number> => {
  const assigned = new Map<string, number>()
  const taken = new Set<number>()
  for (const { key, algorithm } of series) {
    const own = dataParallelNames.findIndex((name) => name === algorithm)
    if (own < 0 || own >= palette.length || taken.has(own) || assigned.has(key)) continue
    assigned.set(key, own)
    taken.add(own)
  }
  // Free slots from the blue one on, grey last: it reads as background.
  const free = palette.map((_, slot) => (slot + 1) % palette.length).filter((slot) => !taken.has(slot))
  let next = 0
  for (const { key } of series) {
    if (assigned.has(key)) continue
    assigned.set(key, free.length === 0 ? next % palette.length : free[next % free.length]!)
    next++
  }
  return assigned
}
