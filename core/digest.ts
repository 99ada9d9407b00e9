// A 64-bit digest of a stream of numbers, cheap enough to take over every event of a run. It tells two runs apart;
// it is no protection against someone who wants two runs to look alike.

const bits = new DataView(new ArrayBuffer(8))

/** Order matters: the same numbers in another order give another digest. */
export class Digest {
  #high = 0x9ae16a3b
  #low = 0x2f90404f

  /** All 64 bits of the number count, so results that differ in the last place differ here. */
  number(value: number): void {
    bits.setFloat64(0, value)
    this.#word(bits.getInt32(0))
    this.#word(bits.getInt32(4))
  }

  text(value: string): void {
    this.#word(value.length)
    for (let i = 0; i < value.length; i++) this.#word(value.charCodeAt(i))
  }

  /** 16 hexadecimal digits. */
  get hex(): string {
    return (this.#high >>> 0).toString(16).padStart(8, "0") + (this.#low >>> 0).toString(16).padStart(8, "0")
  }

  #word(word: number): void {
    // Two multiply-rotate lanes (the mixing step of MurmurHash3), each fed by the other.
    let k = Math.imul(word, 0xcc9e2d51)
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593)
    const high = this.#high ^ k
    this.#high = (Math.imul((high << 13) | (high >>> 19), 5) + 0xe6546b64) | 0
    const low = this.#low ^ Math.imul(word ^ this.#high, 0x85ebca6b)
    this.#low = (Math.imul((low << 16) | (low >>> 16), 0xc2b2ae35) + 0x38495ab5) | 0
  }
}
