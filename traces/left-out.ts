// How much of a trace may be left out before the rest says nothing reliable any more.

/** More than one part in ten; of very few, more than two or more than half. */
export const isTooMuch = (part: number, whole: number): boolean =>
  part * 10 > whole && (part > 2 || part * 2 > whole)
