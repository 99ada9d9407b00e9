// The greatest of numbers that may be as many as a world has ranks: `Math.max(...numbers)` puts each on the stack, which overflows
// at some hundred thousand.

/** -Infinity of none. */
export const greatest = (numbers: Iterable<number>): number => {
  let found = -Infinity
  for (const number of numbers) found = Math.max(found, number)
  return found
}
