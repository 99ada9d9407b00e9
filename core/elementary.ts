// Logarithm, exponential, powers and a cosine that every machine and engine rounds alike: additions, products and divisions in a fixed
// order, nothing else. For numbers that decide, or that times are made of; elsewhere Math has them faster.

const ln2High = 0.6931471803691238
const ln2Low = 1.9082149292705877e-10
const squareRootOf2 = Math.SQRT2

const bits = new DataView(new ArrayBuffer(8))

/** 2^exponent, of a normal double: -1022 to 1023. */
const twoTo = (exponent: number): number => {
  bits.setUint32(0, (exponent + 1023) << 20)
  bits.setUint32(4, 0)
  return bits.getFloat64(0)
}

/** The natural logarithm, within 2 units in the last place. NaN below 0. */
export const log = (x: number): number => {
  if (!(x > 0)) return x === 0 ? -Infinity : NaN
  if (x === Infinity) return x
  // x = m 2^exponent with m between sqrt(1/2) and sqrt(2).
  const subnormal = x < 2.2250738585072014e-308
  bits.setFloat64(0, subnormal ? x * 18014398509481984 : x)
  const high = bits.getUint32(0)
  let exponent = ((high >>> 20) & 0x7ff) - 1023 - (subnormal ? 54 : 0)
  bits.setUint32(0, (high & 0xfffff) | (1023 << 20))
  let m = bits.getFloat64(0)
  if (m > squareRootOf2) {
    m /= 2
    exponent++
  }
  // log m = 2 artanh((m - 1) / (m + 1)), a series in the square.
  const f = (m - 1) / (m + 1)
  const s = f * f
  let series = 0
  for (let n = 25; n >= 3; n -= 2) series = s * (1 / n + series)
  return exponent * ln2High + (exponent * ln2Low + 2 * (f + f * series))
}

/** e^x, within 2 units in the last place of a normal result. */
export const exp = (x: number): number => {
  if (Number.isNaN(x)) return x
  if (x > 709.782712893384) return Infinity
  if (x < -745.1332191019412) return 0
  const k = Math.round(x / (ln2High + ln2Low))
  const r = x - k * ln2High - k * ln2Low
  let sum = 1
  for (let n = 16; n >= 1; n--) sum = 1 + (r * sum) / n
  // In two steps where 2^k is no normal double.
  if (k > 1023) return sum * twoTo(1023) * 2
  return k < -1022 ? sum * twoTo(k + 64) * twoTo(-64) : sum * twoTo(k)
}

/** cos(pi x) for x from 0 to 1, within 1e-15. */
export const cosine = (x: number): number => {
  // cos(pi x) = -cos(pi (1 - x)), and between 0 and pi / 2 a series in the square.
  if (x > 0.5) return -cosine(1 - x)
  const s = Math.PI * x * (Math.PI * x)
  let sum = 1
  for (let n = 22; n >= 2; n -= 2) sum = 1 - (s / (n * (n - 1))) * sum
  return sum
}

/** base^exponent of a base that is not negative; 0^0 is 1. */
export const power = (base: number, exponent: number): number => {
  if (exponent === 0) return 1
  return base === 1 ? 1 : exp(exponent * log(base))
}
