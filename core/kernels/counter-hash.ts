// Numbers drawn by counting, not by state: any one of them can be had by itself, so a device draws many at a time and every
// implementation draws the same. Integers only.

/** 32-bit finalizer of MurmurHash3: every input bit moves every output bit. The low 32 bits of `word`, whole or negative. */
export const mix = (word: number): number => {
  const low = word | 0
  let h = low ^ (low >>> 16)
  h = Math.imul(h, 0x85ebca6b)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** Words that one normal number is made of. */
const words = 6

/**
 * A word of 32 bits for every index, of so many that are drawn for it. `seed` and `index` are whole numbers below 2^53.
 *
 * An element's own hash walks through all 32-bit words as the index counts, from where the seed says; the words that are
 * drawn from it are mixed with the seed anew, so that two seeds that meet on the walk do not draw alike.
 */
const wordsOf = (seed: number, count: number) => {
  const high = Math.floor(seed / 0x100000000)
  const start = mix(mix(seed) + high)
  const again = mix(start ^ 0x9e3779b9)
  return {
    keys: Array.from({ length: count }, (_, word) => mix(again + word)),
    own: (index: number) => mix(mix(start + Math.floor(index / 0x100000000)) + (index % 0x100000000))
  }
}

/**
 * Normal numbers by their index: mean 0, deviation 1 (less 1e-10), within +-6. Each is the sum of twelve uniform numbers of 16
 * bits, and so exact.
 */
export const normals = (seed: number): ((index: number) => number) => {
  const { keys, own } = wordsOf(seed, words)
  return (index) => {
    const hash = own(index)
    let sum = 0
    for (const key of keys) {
      const drawn = mix(hash + key)
      sum += (drawn & 0xffff) + (drawn >>> 16)
    }
    return (2 * sum - 12 * 0xffff) / 0x20000
  }
}

/** Uniform numbers by their index: multiples of 2^-32 from 0, below 1. */
export const uniforms = (seed: number): ((index: number) => number) => {
  const { keys, own } = wordsOf(seed, 1)
  return (index) => mix(own(index) + keys[0]!) / 0x100000000
}
