import * as fc from "fast-check"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe, expect, it } from "vitest"
import {
  acceptedForms,
  Bandwidth,
  Bytes,
  Count,
  counted,
  describeUnitFailure,
  Flops,
  formatBandwidth,
  formatBytes,
  formatSeconds,
  formatShare,
  parseBandwidth,
  parseBytes,
  parseCount,
  parseFlops,
  parseSeconds,
  Seconds,
  type UnitFailure
} from "../core/units.ts"

type Parse = (input: string | number) => Result.Result<number, UnitFailure>
const value = (parsed: Result.Result<number, UnitFailure>): number => Result.getOrThrow(parsed)
const reason = (parsed: Result.Result<number, UnitFailure>): string =>
  Result.match(parsed, { onSuccess: (n) => `parsed as ${n}`, onFailure: (failure) => failure.reason })

describe("parsing", () => {
  it.each<[string | number, number]>([
    ["1Gbit/s", 1.25e8],
    ["1 Gbps", 1.25e8],
    ["1Gb/s", 1.25e8],
    ["10gbit", 1.25e9],
    ["100mbit", 1.25e7],
    ["1Kibit", 128],
    ["125MB/s", 1.25e8],
    ["450GB/s", 4.5e11],
    ["1GiB/s", 2 ** 30],
    ["8 bit/s", 1],
    ["0.1 Gbit/s", 1.25e7],
    ["0bit/s", 0],
    [0, 0],
    ["0", 0],
    [" unlimited ", Infinity],
    ["unshaped", Infinity]
  ])("bandwidth %s", (text, expected) => expect(value(parseBandwidth(text))).toBe(expected))

  it.each<[string | number, string]>([
    ["1", "no unit"],
    [1e9, "no unit"],
    ["1e9", "no unit"],
    ["10gbps", "bits or bytes"],
    ["1GB", "a size, not a rate"],
    ["-1Gbit/s", "negative"],
    [-1, "negative"],
    [Number.NaN, "not a number"],
    ["", "empty"],
    ["fast", "does not start with a number"],
    ["1Xbit/s", "not a unit"],
    ["1 furlong", "not a unit"],
    ["1e400Gbit/s", "not finite"]
  ])("bandwidth %s is refused", (text, why) => expect(reason(parseBandwidth(text))).toContain(why))

  it.each<[string | number, number]>([
    ["25MiB", 26_214_400],
    ["1MB", 1e6],
    ["1kB", 1000],
    ["1KB", 1000],
    ["1KiB", 1024],
    ["4096", 4096],
    [4096, 4096],
    ["512 B", 512],
    ["1.5GB", 1.5e9]
  ])("bytes %s", (text, expected) => expect(value(parseBytes(text))).toBe(expected))

  it.each<[string | number, string]>([
    ["25Mb", "in bits"],
    ["1Gbit", "in bits"],
    ["1mB", "not a unit"],
    ["1MB/s", "not a unit"],
    [-1, "negative"],
    [Infinity, "not finite"]
  ])("bytes %s is refused", (text, why) => expect(reason(parseBytes(text))).toContain(why))

  it.each<[string | number, number]>([
    ["40ms", 0.04],
    ["50us", 0.00005],
    ["50\u00b5s", 0.00005],
    ["50\u03bcs", 0.00005],
    ["1.5s", 1.5],
    ["3ns", 3e-9],
    ["2h", 7200],
    ["10 min", 600],
    ["1d", 86400],
    ["0.25", 0.25],
    [0.25, 0.25]
  ])("seconds %s", (text, expected) => expect(value(parseSeconds(text))).toBe(expected))

  it.each<[string | number, string]>([
    ["5m", "not a unit"],
    ["5S", "not a unit"],
    ["5 toString", "not a unit"],
    ["-40ms", "negative"],
    ["ms", "does not start"]
  ])("seconds %s is refused", (text, why) => expect(reason(parseSeconds(text))).toContain(why))

  it("FLOP rates and counts", () => {
    expect(value(parseFlops("990TFLOP/s"))).toBe(990e12)
    expect(value(parseFlops("19.5 TFLOPS"))).toBe(19.5e12)
    expect(value(parseFlops(1e12))).toBe(1e12)
    for (const text of ["312TFlop/s", "312 Tflop/s", "312 tflops", "312TFLOPs/s", "312 TFlops/S"])
      expect(value(parseFlops(text)), text).toBe(312e12)
    expect(value(parseFlops("20 gflop/s"))).toBe(20e9)
    expect(reason(parseFlops("20 mb/s"))).toContain("not a unit")
    expect(reason(parseFlops("990TFLOP"))).toContain("not a unit")
    expect(value(parseCount("124M"))).toBe(124e6)
    expect(value(parseCount("1e9"))).toBe(1e9)
    expect(value(parseCount("1.3B"))).toBe(1.3e9)
    expect(value(parseCount("2.3G"))).toBe(2.3e9)
    expect(value(parseCount(124_439_808))).toBe(124_439_808)
    expect(reason(parseCount("1.5"))).toContain("whole")
    expect(reason(parseCount("7b"))).toContain("not a unit")
  })

  it("a failure names value, reason and accepted forms", () => {
    const parsed = parseBandwidth("1000")
    expect(Result.isFailure(parsed) && parsed.failure).toEqual({
      value: '"1000"',
      reason: "it has no unit (bits or bytes?)",
      accepted: acceptedForms.bandwidth
    })
    expect(Result.isFailure(parsed) && describeUnitFailure(parsed.failure)).toContain('"1Gbit/s"')
  })

  it("never throws, and what it accepts is a number >= 0", () => {
    const unit = fc.constantFrom(
      "",
      "b",
      "B",
      "bit",
      "bit/s",
      "bps",
      "B/s",
      "s",
      "ms",
      "m",
      "h",
      "FLOP/s",
      "x"
    )
    const amount = fc.oneof(fc.double(), fc.double({ min: 1e-30, max: 1e30 }))
    const prefix = fc.constantFrom("", "k", "K", "m", "M", "g", "G", "Ki", "Mi", "ki", "i")
    const text = fc.oneof(
      fc.string(),
      amount,
      fc.tuple(amount, prefix, unit).map(([n, p, u]) => `${n} ${p}${u}`)
    )
    const parsers: ReadonlyArray<Parse> = [parseBandwidth, parseBytes, parseSeconds, parseFlops, parseCount]
    let accepted = 0
    let refused = 0
    fc.assert(
      fc.property(text, fc.constantFrom(...parsers), (input, parse) => {
        const parsed = parse(input)
        if (Result.isSuccess(parsed)) {
          accepted++
          return parsed.success >= 0 && !Object.is(parsed.success, -0)
        }
        refused++
        return parsed.failure.accepted.length > 0 && parsed.failure.reason.length > 0
      }),
      { numRuns: 5000 }
    )
    expect(accepted).toBeGreaterThan(100)
    expect(refused).toBeGreaterThan(100)
  })
})

describe("printing", () => {
  it.each<[number, string]>([
    [0, "0 s"],
    [0.0123456, "12.3 ms"],
    [0.0009996, "1.00 ms"],
    [1.5, "1.50 s"],
    [5234, "5230 s"],
    [4.2e-5, "42.0 us"],
    [3e-9, "3.00 ns"],
    [3e-12, "0.003 ns"]
  ])("%s seconds", (seconds, text) => expect(formatSeconds(seconds)).toBe(text))

  it("bytes, bandwidth and shares", () => {
    expect(formatBytes(26_214_400)).toBe("26.2 MB")
    expect(formatBytes(999_999)).toBe("1.00 MB")
    expect(formatBytes(0)).toBe("0 B")
    expect(formatBandwidth(1.25e8)).toBe("1.00 Gbit/s")
    expect(formatBandwidth(Infinity)).toBe("unlimited")
    expect(formatBandwidth(0)).toBe("0 bit/s")
    expect(formatShare(0.1234)).toBe("12.3 %")
  })

  it("parse(print(x)) is x within the three printed digits", () => {
    const magnitude = fc
      .tuple(fc.double({ min: 1, max: 10, noNaN: true }), fc.integer({ min: -13, max: 17 }))
      .map(([mantissa, exponent]) => Number(`${mantissa}e${exponent}`))
    const pairs: ReadonlyArray<[(x: number) => string, Parse]> = [
      [formatSeconds, parseSeconds],
      [formatBytes, parseBytes],
      [formatBandwidth, parseBandwidth]
    ]
    fc.assert(
      fc.property(magnitude, fc.constantFrom(...pairs), (x, [format, parse]) => {
        // Half a unit of the third digit is at most 0.5 % of the value; the tie may round either way.
        expect(Math.abs(value(parse(format(x))) - x)).toBeLessThanOrEqual(0.005 * x * (1 + 1e-9))
      }),
      { numRuns: 3000 }
    )
  })
})

describe("schemas", () => {
  const failure = (schema: Schema.Codec<number, string | number>, input: unknown): string => {
    const exit = Schema.decodeUnknownExit(schema)(input)
    return Exit.isFailure(exit) ? String(exit.cause) : `decoded to ${exit.value}`
  }

  it("decode text and numbers", () => {
    expect(Schema.decodeUnknownSync(Bandwidth)("1Gbit/s")).toBe(1.25e8)
    expect(Schema.decodeUnknownSync(Bytes)("25MiB")).toBe(26_214_400)
    expect(Schema.decodeUnknownSync(Seconds)(0.04)).toBe(0.04)
    expect(Schema.decodeUnknownSync(Flops)("1PFLOP/s")).toBe(1e15)
    expect(Schema.decodeUnknownSync(Count)("7B")).toBe(7e9)
  })

  it.each<[Parse, string | number]>([
    [parseSeconds, 1e31],
    [parseSeconds, "1e-31s"],
    [parseBandwidth, "1e300bit/s"],
    [parseBytes, 1e-300],
    [parseCount, "1e31"]
  ])("%o refuses %j, which no machine has and sums would overflow with", (parse, input) => {
    const parsed = parse(input)
    expect(Result.isFailure(parsed) && parsed.failure.reason).toBe("it is not between 1e-30 and 1e+30")
  })

  it("encode without loss", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(0, Infinity), fc.double({ min: 1e-30, max: 1e30, noNaN: true })),
        (x) => {
          const back = Schema.decodeUnknownSync(Bandwidth)(Schema.encodeSync(Bandwidth)(x))
          expect(back).toBe(x === 0 ? 0 : x)
        }
      )
    )
  })

  it.each<[string, Schema.Codec<number, string | number>, unknown]>([
    ["bandwidth", Bandwidth, 5],
    ["bandwidth", Bandwidth, { rate: 5 }],
    ["bandwidth", Bandwidth, null],
    ["bytes", Bytes, "-1"],
    ["seconds", Seconds, "soon"],
    ["flops", Flops, Number.NaN],
    ["count", Count, 1.5]
  ])("a failed %s states the accepted forms", (quantity, schema, input) =>
    expect(failure(schema, input)).toContain(acceptedForms[quantity as keyof typeof acceptedForms])
  )

  it("the failure says where in a document it is", () => {
    const Link = Schema.Struct({ link: Schema.Struct({ bandwidth: Bandwidth }) })
    const exit = Schema.decodeUnknownExit(Link)({ link: { bandwidth: "1" } })
    expect(Exit.isFailure(exit) && String(exit.cause)).toMatch(/no unit[\s\S]*\["link"\]\["bandwidth"\]/u)
  })
})

it("counts one thing as one", () => {
  expect([counted(1, "rank"), counted(0, "rank"), counted(4, "rank")]).toEqual([
    "1 rank",
    "0 ranks",
    "4 ranks"
  ])
})
