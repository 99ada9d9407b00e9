// Numbers strings, so that columns of them can be columns of integers.

export class Dictionary {
  /** In the order they first appeared; a string's code is its index. */
  readonly values: Array<string> = []
  readonly #codes = new Map<string, number>()

  code(value: string): number {
    let code = this.#codes.get(value)
    if (code === undefined) {
      code = this.values.length
      this.values.push(value)
      this.#codes.set(value, code)
    }
    return code
  }
}
