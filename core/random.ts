// The one source of randomness: a seeded generator that splits into independent named streams, so that what one part
// draws never depends on how often another part drew. Integer arithmetic only: the same on every machine.

/** 32-bit hash of a string (FNV-1a), to name streams. */
const hashText = (text: string, seed: number): number => {
  let hash = (0x811c9dc5 ^ seed) >>> 0
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0
  return hash
}

/** Seed of the independent stream of that name, below 2^53. */
export const splitSeed = (seed: number, name: string): number => {
  const high = hashText(name, seed >>> 0)
  const low = hashText(name, Math.imul(high, 0x85ebca6b) ^ Math.floor(seed / 0x100000000))
  return (high & 0x1fffff) * 0x100000000 + low
}

/** sfc32 (Chris Doty-Humphrey's small fast counting generator), 128 bits of state, period at least 2^32. */
export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1
  readonly #seed: number

  constructor(seed: number) {
    this.#seed = seed
    this.#a = seed | 0
    this.#b = Math.floor(seed / 0x100000000) | 0
    this.#c = 0x9e3779b9 | 0
    for (let i = 0; i < 12; i++) this.uint32()
  }

  /** An independent generator; the same name always gives the same stream, whatever was drawn before. */
  split(name: string): Random {
    return new Random(splitSeed(this.#seed, name))
  }

  /** Uniform integer in [0, 2^32). */
  uint32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0
    return t >>> 0
  }

  /** Uniform in [0, 1), 32 bits. */
  uniform(): number {
    return this.uint32() / 0x100000000
  }

  /** Uniform integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.uniform() * bound)
  }

  /**
   * Mean 0, standard deviation 1, bounded by +-6: a sum of twelve uniforms. No logarithm or cosine is used, whose last
   * digit may differ between JavaScript engines.
   */
  normal(): number {
    let sum = -6
    for (let i = 0; i < 12; i++) sum += this.uniform()
    return sum
  }

  /**
   * Never negative, mean 1 and the given standard deviation, 0 to 1: the square of a normal variable, so close to a normal
   * distribution where the deviation is small, and skewed to the right where it is large, as times are.
   *
   * X = (a + b N)^2 with N = `normal()`, whose fourth moment is 2.9: E X = a^2 + b^2 = 1, and
   * Var X = 4 a^2 b^2 + 1.9 b^4 = 4 b^2 - 2.1 b^4 = deviation^2. Square roots are exact on every machine; exp and log are not.
   */
  positive(deviation: number): number {
    const square = (4 - Math.sqrt(16 - 8.4 * deviation * deviation)) / 4.2
    const root = Math.sqrt(1 - square) + Math.sqrt(square) * this.normal()
    return root * root
  }
}
