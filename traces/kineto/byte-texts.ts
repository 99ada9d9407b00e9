// Each text once, as a small integer, found by its bytes: a trace says the same few thousand names millions of times, and
// making a string of each would cost more than reading the file.

/** Codes are given in order of first sight; `texts[code]` is the text. */
export class ByteTexts {
  readonly texts: Array<string> = []
  /** Code + 1 by hash, 0 where free. */
  #table = new Int32Array(1 << 7)
  #hashes = new Int32Array(1 << 6)
  /** The bytes of all texts, one after the other; text `code` ends at `#ends[code]`. */
  #store = new Uint8Array(1 << 10)
  #ends = new Int32Array(1 << 6)

  /** The code of `bytes[start, end)`, which are UTF-8; `escaped` says how to read them where they have a backslash. */
  code(bytes: Uint8Array, start: number, end: number): number {
    let hash = end - start
    for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0
    hash ^= hash >>> 15
    const mask = this.#table.length - 1
    let slot = hash & mask
    for (;;) {
      const code = this.#table[slot]! - 1
      if (code < 0) break
      if (this.#hashes[code] === hash && this.#isAt(code, bytes, start, end)) return code
      slot = (slot + 1) & mask
    }
    return this.#insert(hash, bytes, start, end)
  }

  #isAt(code: number, bytes: Uint8Array, start: number, end: number): boolean {
    const from = code === 0 ? 0 : this.#ends[code - 1]!
    if (this.#ends[code]! - from !== end - start) return false
    const store = this.#store
    for (let i = start, at = from; i < end; i++, at++) if (store[at] !== bytes[i]) return false
    return true
  }

  #insert(hash: number, bytes: Uint8Array, start: number, end: number): number {
    const code = this.texts.length
    const from = code === 0 ? 0 : this.#ends[code - 1]!
    const to = from + end - start
    if (to > this.#store.length) {
      const grown = new Uint8Array(Math.max(to, this.#store.length * 2))
      grown.set(this.#store.subarray(0, from))
      this.#store = grown
    }
    this.#store.set(bytes.subarray(start, end), from)
    if (code === this.#ends.length) {
      this.#ends = doubled(this.#ends)
      this.#hashes = doubled(this.#hashes)
    }
    this.#ends[code] = to
    this.#hashes[code] = hash
    this.texts.push(textOf(Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("utf8")))
    if (this.texts.length * 2 > this.#table.length) this.#rehash()
    else this.#place(code)
    return code
  }

  #place(code: number): void {
    const mask = this.#table.length - 1
    let slot = this.#hashes[code]! & mask
    while (this.#table[slot] !== 0) slot = (slot + 1) & mask
    this.#table[slot] = code + 1
  }

  #rehash(): void {
    this.#table = new Int32Array(this.#table.length * 2)
    for (let code = 0; code < this.texts.length; code++) this.#place(code)
  }
}

const doubled = (values: Int32Array): Int32Array<ArrayBuffer> => {
  const grown = new Int32Array(values.length * 2)
  grown.set(values)
  return grown
}

/** What JSON writes between quotes; as it stands where it is no JSON (a raw control character). */
const textOf = (written: string): string => {
  if (!written.includes("\\")) return written
  try {
    return JSON.parse(`"${written}"`) as string
  } catch {
    return written
  }
}
