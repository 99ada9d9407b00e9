// Places in ascending times. Knows nothing of what happens at them.

/** How many of ascending times are at most `time`. */
export const countUpTo = (times: ArrayLike<number>, time: number): number => {
  let low = 0
  let high = times.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle]! <= time) low = middle + 1
    else high = middle
  }
  return low
}

/** How many of ascending times are less than `time`. */
export const countBefore = (times: ArrayLike<number>, time: number): number => {
  let low = 0
  let high = times.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle]! < time) low = middle + 1
    else high = middle
  }
  return low
}
