// Typed arrays made longer: what they hold is kept, zeros (or `fill`) follow.

export const grownFloat64 = (array: Float64Array, length: number): Float64Array<ArrayBuffer> => {
  const longer = new Float64Array(length)
  longer.set(array)
  return longer
}

export const grownInt32 = (array: Int32Array, length: number, fill = 0): Int32Array<ArrayBuffer> => {
  const longer = new Int32Array(length)
  if (fill !== 0) longer.fill(fill, array.length)
  longer.set(array)
  return longer
}

export const grownUint8 = (array: Uint8Array, length: number): Uint8Array<ArrayBuffer> => {
  const longer = new Uint8Array(length)
  longer.set(array)
  return longer
}
