// Sums of products as references compute them: each sum in its own order, one term after the other. Four neighbours are under way at
// once, which changes no bit of any and is half as fast again: the sums of a simulation with values are nearly all of its time.

type Values = Float32Array | Float64Array | Int32Array

/** Elements row * rowStride + term * termStride of an array. */
interface Strided {
  readonly of: ArrayLike<number>
  readonly stride: number
  readonly termStride: number
}

/**
 * out[row, column] = start(row * columns + column) + the sum over `terms` of left[row, term] * right[column, term]; `start` is 0
 * where it is left out. Sums are float64, and stored as `out` stores them.
 */
export const sumsOfProducts = (
  out: Values,
  rows: number,
  columns: number,
  terms: number,
  { of: a, stride: aRow, termStride: aTerm }: Strided,
  { of: b, stride: bColumn, termStride: bTerm }: Strided,
  start: (at: number) => number = none
): void => {
  for (let row = 0; row < rows; row++) {
    let column = 0
    for (; column + 4 <= columns; column += 4) {
      const at = row * columns + column
      let first = start(at)
      let second = start(at + 1)
      let third = start(at + 2)
      let fourth = start(at + 3)
      let i = row * aRow
      let j = column * bColumn
      for (let term = 0; term < terms; term++) {
        const x = a[i]!
        first += x * b[j]!
        second += x * b[j + bColumn]!
        third += x * b[j + 2 * bColumn]!
        fourth += x * b[j + 3 * bColumn]!
        i += aTerm
        j += bTerm
      }
      out[at] = first
      out[at + 1] = second
      out[at + 2] = third
      out[at + 3] = fourth
    }
    for (; column < columns; column++) {
      const at = row * columns + column
      let sum = start(at)
      for (let term = 0; term < terms; term++)
        sum += a[row * aRow + term * aTerm]! * b[column * bColumn + term * bTerm]!
      out[at] = sum
    }
  }
}

const none = (): number => 0
