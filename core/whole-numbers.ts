// Arithmetic of whole numbers.

/** Least common multiple of two numbers from 1 on. */
export const leastCommonMultiple = (a: number, b: number): number => {
  let [x, y] = [a, b]
  while (y !== 0) [x, y] = [y, x % y]
  return (a / x) * b
}
