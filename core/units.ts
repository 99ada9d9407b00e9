// Human units at the edge: "1Gbit/s", "25MiB", "40ms" to and from the float64 SI numbers used inside (bytes/s, bytes,
// seconds, FLOP/s, counts). Knows nothing of scenarios, files or models; nothing past the edge should call it.
//
// Case rules, for every quantity:
// - `b` and `bit` are bits, `B` is bytes (8 bits). They are never guessed from one another.
// - Decimal prefixes are powers of 1000: k (or K), M, G, T, P. Binary prefixes are powers of 1024: Ki, Mi, Gi, Ti, Pi.
// - A lower-case m, g, t or p is read as mega, giga, ... only before the whole word `bit` (tc writes "10gbit") and before
//   `flop`, which is read in any case. `bps` is
//   bits per second, but "10gbps" is refused: tc reads it as gigabytes per second and network people as gigabits.
// - Spaces around the unit do not matter. Numbers may have a fraction and an exponent ("1.5e-3 s").

import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as SchemaIssue from "effect/SchemaIssue"

/** Why a text is not the quantity it should be. */
export interface UnitFailure {
  /** What was given, as text. */
  readonly value: string
  /** What is wrong with it, as a clause: "it has no unit (bits or bytes?)". */
  readonly reason: string
  /** The accepted forms, as a phrase: `a bandwidth such as "1Gbit/s"`. */
  readonly accepted: string
}

/** One sentence for a person: value, reason and accepted forms. */
export const describeUnitFailure = (failure: UnitFailure): string =>
  `${failure.value} is not accepted: ${failure.reason}; expected ${failure.accepted}`

/** The accepted forms of each quantity, as they appear in messages. */
export const acceptedForms = {
  bandwidth:
    'a bandwidth with its unit, such as "1Gbit/s", "1 Gbps", "10gbit" (bits) or "125MB/s", "1GiB/s" (bytes), or "unlimited"',
  bytes: 'a size such as "25MiB" (1024-based), "1MB" (1000-based), "512B" or a bare number of bytes',
  seconds: 'a time such as "40ms", "50us", "1.5s", "10min", "2h" or a bare number of seconds',
  flops: 'a rate such as "990TFLOP/s" or a bare number of FLOP/s',
  count: 'a whole number such as 124439808, "1e9" or "124M" (k, M, B or G, T)'
} as const

type Quantity = keyof typeof acceptedForms

const numberAndUnit = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)$/u

const show = (input: string | number): string =>
  typeof input === "number" ? String(input) : JSON.stringify(input)

/** Beyond it is no quantity of any machine, in SI units; up to it no sum or quotient of quantities overflows to infinity. */
export const largestQuantity = 1e30
const smallestQuantity = 1e-30

/** A parser of one quantity: splits number from unit, leaves the unit to `scale`, refuses what no quantity can be. */
const parser =
  (quantity: Quantity, scale: (amount: number, unit: string) => number | string) =>
  (input: string | number): Result.Result<number, UnitFailure> => {
    const fail = (reason: string) =>
      Result.fail({ value: show(input), reason, accepted: acceptedForms[quantity] })
    let amount: number
    let unit = ""
    if (typeof input === "number") {
      amount = input
    } else {
      const match = numberAndUnit.exec(input.trim())
      if (match === null) return fail(input.trim() === "" ? "it is empty" : "it does not start with a number")
      amount = Number(match[1])
      unit = (match[2] ?? "").trim()
    }
    if (Number.isNaN(amount)) return fail("it is not a number")
    if (amount < 0) return fail("it is negative")
    const scaled = scale(amount, unit)
    if (typeof scaled === "string") return fail(scaled)
    if (!Number.isFinite(scaled)) return fail("it is not finite")
    if (scaled !== 0 && !(scaled >= smallestQuantity && scaled <= largestQuantity))
      return fail(`it is not between ${smallestQuantity} and ${largestQuantity}`)
    // -0 would survive every test above and print as "-0".
    return Result.succeed(scaled === 0 ? 0 : scaled)
  }

const decimal: Readonly<Record<string, number>> = { "": 1, k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 }
const binary: Readonly<Record<string, number>> = {
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50
}

/** Factor of a prefix in its exact case, or undefined. */
const prefixFactor = (prefix: string): number | undefined => decimal[prefix] ?? binary[prefix]

/** Factor of a prefix in any case: only for `bit` spelled out, where "m" cannot be read as anything but mega. */
const anyCasePrefixFactor = (prefix: string): number | undefined =>
  prefix === "" ? 1 : prefixFactor(prefix.charAt(0).toUpperCase() + prefix.slice(1).toLowerCase())

const unknownUnit = (unit: string): string => `${JSON.stringify(unit)} is not a unit of it`

const unlimited = /^(?:unlimited|unshaped)$/iu
const parseFiniteBandwidth = parser("bandwidth", (amount, unit) => {
  if (unit === "") return amount === 0 ? 0 : "it has no unit (bits or bytes?)"
  const words = /^([kmgtp]?i?)bit(?:s)?(?:\/s|ps)?$/iu.exec(unit)
  if (words !== null) {
    const factor = anyCasePrefixFactor(words[1] ?? "")
    return factor === undefined ? unknownUnit(unit) : (amount * factor) / 8
  }
  const letters = /^([A-Za-z]*?)([bB])(\/s|ps)?$/u.exec(unit)
  if (letters === null) return unknownUnit(unit)
  const [, prefix = "", letter, perSecond] = letters
  const factor = prefixFactor(prefix)
  if (factor === undefined) {
    return anyCasePrefixFactor(prefix) !== undefined && letter === "b"
      ? `the case of ${JSON.stringify(unit)} leaves open whether bits or bytes are meant`
      : unknownUnit(unit)
  }
  if (perSecond === undefined) return `${JSON.stringify(unit)} is a size, not a rate`
  return letter === "b" ? (amount * factor) / 8 : amount * factor
})

/**
 * Bytes per second of a bandwidth: "1Gbit/s", "1 Gbps", "10gbit" (tc), "125MB/s", "unlimited" or "unshaped" (Infinity).
 * A number without a unit is refused, as bits and bytes are confused too often; 0, which needs none, is a link that is down.
 */
export const parseBandwidth = (input: string | number): Result.Result<number, UnitFailure> =>
  input === Number.POSITIVE_INFINITY || (typeof input === "string" && unlimited.test(input.trim()))
    ? Result.succeed(Number.POSITIVE_INFINITY)
    : parseFiniteBandwidth(input)

/** Bytes of a size: "25MiB" = 25 * 2^20, "1MB" = 10^6, a bare number is bytes. Bits ("25Mb") are refused. */
export const parseBytes: (input: string | number) => Result.Result<number, UnitFailure> = parser(
  "bytes",
  (amount, unit) => {
    if (unit === "") return amount
    if (/(?:b|bits?)$/u.test(unit)) return `${JSON.stringify(unit)} is in bits`
    const match = /^([A-Za-z]*)B$/u.exec(unit)
    const factor = match === null ? undefined : prefixFactor(match[1] ?? "")
    return factor === undefined ? unknownUnit(unit) : amount * factor
  }
)

/** Units below a second divide by an exact power of ten, so that "50us" is the float nearest to 0.00005. */
const timeUnits: Readonly<Record<string, (amount: number) => number>> = {
  "": (amount) => amount,
  s: (amount) => amount,
  ms: (amount) => amount / 1e3,
  us: (amount) => amount / 1e6,
  "\u00b5s": (amount) => amount / 1e6,
  "\u03bcs": (amount) => amount / 1e6,
  ns: (amount) => amount / 1e9,
  min: (amount) => amount * 60,
  h: (amount) => amount * 3600,
  d: (amount) => amount * 86_400
}

/** Seconds of a time: "40ms", "50us" (or µs), "1.5s", "10min", "2h", "1d"; a bare number is seconds. "m" is refused. */
export const parseSeconds: (input: string | number) => Result.Result<number, UnitFailure> = parser(
  "seconds",
  (amount, unit) => {
    const convert = Object.hasOwn(timeUnits, unit) ? timeUnits[unit] : undefined
    return convert === undefined ? unknownUnit(unit) : convert(amount)
  }
)

/** FLOP per second of a rate, in any case: "990TFLOP/s", "19.5 TFLOPS", "312 Tflop/s"; a bare number is FLOP/s. */
export const parseFlops: (input: string | number) => Result.Result<number, UnitFailure> = parser(
  "flops",
  (amount, unit) => {
    if (unit === "") return amount
    // Before this word no prefix can be mistaken, whatever its case: nobody counts thousandths of operations.
    const match = /^([kmgtp]?)flop(?:s?\/s|s)$/iu.exec(unit)
    const prefix = (match?.[1] ?? "").toUpperCase()
    const factor = match === null ? undefined : prefixFactor(prefix === "K" ? "k" : prefix)
    return factor === undefined ? unknownUnit(unit) : amount * factor
  }
)

const countSuffixes: Readonly<Record<string, number>> = { ...decimal, B: 1e9 }

/** A whole number, as of parameters: 124439808, "1e9", "124M", "7B" (= "7G"). A fraction that does not vanish is refused. */
export const parseCount: (input: string | number) => Result.Result<number, UnitFailure> = parser(
  "count",
  (amount, unit) => {
    const factor = Object.hasOwn(countSuffixes, unit) ? countSuffixes[unit] : undefined
    if (factor === undefined) return unknownUnit(unit)
    const count = amount * factor
    const whole = Math.round(count)
    // "1.3B" is whole although 1.3 * 1e9 need not be in floating point.
    return Math.abs(count - whole) <= 1e-12 * whole ? whole : "it is not a whole number"
  }
)

/** A schema from a scenario's text or number to the SI number; its failures carry the parser's sentence. */
const quantitySchema = (
  quantity: Quantity,
  parse: (input: string | number) => Result.Result<number, UnitFailure>,
  print: (value: number) => string | number
) =>
  Schema.Union([Schema.String, Schema.Number])
    .annotate({ expected: acceptedForms[quantity] })
    .pipe(
      Schema.decodeTo(Schema.Number, {
        decode: SchemaGetter.transformEffect((input: string | number, options) => {
          const parsed = parse(input)
          return Result.isSuccess(parsed)
            ? Effect.succeed(parsed.success)
            : Effect.fail(
                new SchemaIssue.InvalidValue({ message: describeUnitFailure(parsed.failure) }, input, options)
              )
        }),
        encode: SchemaGetter.transform(print)
      })
    )

/** Bytes per second, from text with a unit. Encodes without loss. */
export const Bandwidth = quantitySchema("bandwidth", parseBandwidth, (value) =>
  value === Number.POSITIVE_INFINITY ? "unlimited" : `${value}B/s`
)
/** Bytes. */
export const Bytes = quantitySchema("bytes", parseBytes, (value) => value)
/** Seconds. */
export const Seconds = quantitySchema("seconds", parseSeconds, (value) => value)
/** FLOP per second. */
export const Flops = quantitySchema("flops", parseFlops, (value) => value)
/** A whole number. */
export const Count = quantitySchema("count", parseCount, (value) => value)

/** Scales to print with, largest first, and what one of each is. */
type Scale = ReadonlyArray<readonly [unit: string, value: number]>

/**
 * Three significant digits in the largest unit that gives at least 1. The unit is chosen after rounding, so that
 * 0.9996 ms prints as "1.00 ms" and not as "1000 us". Beyond the last unit the digits are padded with zeros, not dropped.
 */
const print3 = (value: number, scale: Scale): string => {
  if (!Number.isFinite(value)) return String(value)
  const rounded = Number(value.toPrecision(3))
  const entry = scale.find(([, one]) => Math.abs(rounded) >= one) ?? scale.at(-1)!
  const amount = rounded / entry[1]
  const magnitude = Math.abs(amount)
  const digits =
    magnitude >= 1 && magnitude < 1000 ? amount.toPrecision(3) : String(Number(amount.toPrecision(3)))
  return `${digits} ${entry[0]}`
}

const secondScale: Scale = [
  ["s", 1],
  ["ms", 1e-3],
  ["us", 1e-6],
  ["ns", 1e-9]
]
const byteScale: Scale = [
  ["PB", 1e15],
  ["TB", 1e12],
  ["GB", 1e9],
  ["MB", 1e6],
  ["kB", 1e3],
  ["B", 1]
]
const bitRateScale: Scale = [
  ["Tbit/s", 1e12],
  ["Gbit/s", 1e9],
  ["Mbit/s", 1e6],
  ["kbit/s", 1e3],
  ["bit/s", 1]
]

/** "12.3 ms": three significant digits in s, ms, us or ns; "0 s" for zero. */
export const formatSeconds = (seconds: number): string =>
  seconds === 0 ? "0 s" : print3(seconds, secondScale)

/** "26.2 MB": three significant digits, 1000-based like the bandwidths it is read beside; "0 B" for zero. */
export const formatBytes = (bytes: number): string => (bytes === 0 ? "0 B" : print3(bytes, byteScale))

/** "1.00 Gbit/s": three significant digits, in bits as links are named; "unlimited" for Infinity. */
export const formatBandwidth = (bytesPerSecond: number): string =>
  bytesPerSecond === Number.POSITIVE_INFINITY
    ? "unlimited"
    : bytesPerSecond === 0
      ? "0 bit/s"
      : print3(bytesPerSecond * 8, bitRateScale)

/** "12.3 %" of a share in 0..1 (or a relative difference): one decimal. */
export const formatShare = (share: number): string => `${(share * 100).toFixed(1)} %`

/** "1 rank", "4 ranks": of words whose plural is an s; with what they do, as one and as several: "1 rank has", "4 ranks have". */
export const counted = (count: number, one: string, does?: string, doAll?: string): string =>
  count === 1
    ? `1 ${one}${does === undefined ? "" : ` ${does}`}`
    : `${count} ${one}s${doAll === undefined ? "" : ` ${doAll}`}`
