// Checks the sizes a model is built from.

/** Throws RangeError unless every size is a positive whole number and each pair divides: [dividend, divisor]. */
export const checkSizes = (
  model: string,
  sizes: Readonly<Record<string, number>>,
  pairs: ReadonlyArray<readonly [dividend: string, divisor: string]>
): void => {
  for (const [name, size] of Object.entries(sizes)) {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new RangeError(`${model}: ${name} is ${size}; expected a positive whole number`)
    }
  }
  for (const [dividend, divisor] of pairs) {
    if (sizes[dividend]! % sizes[divisor]! !== 0) {
      throw new RangeError(
        `${model}: ${dividend} ${sizes[dividend]!} is not a multiple of ${divisor} ${sizes[divisor]!}`
      )
    }
  }
}

/**
 * Rows of an embedding table, and logits of a row: the vocabulary, rounded up to a multiple. Products are several times as fast
 * at multiples of 64 as at odd sizes, on GPUs.
 */
export const paddedVocabulary = (vocabulary: number, multiple = 1): number =>
  Math.ceil(vocabulary / multiple) * multiple
