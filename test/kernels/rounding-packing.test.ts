// Rounding to each dtype's grid, and packing with block scales.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Dtype } from "../../core/machine/tensor.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { operand } from "../../core/kernels/kernel.ts"
import { maxOf, round, roundInPlace, toTf32 } from "../../core/kernels/rounding.ts"
import { numbers } from "./run.ts"

const float4Grid = [0, 0.25, 0.5, 1, 2, 4, 8, 16]

/** Every non-negative finite value of a format, in the order of its codes, straight from its definition. */
const gridOf = (
  exponentBits: number,
  mantissaBits: number,
  bias: number,
  codes: number
): ReadonlyArray<number> =>
  Array.from({ length: codes }, (_, code) => {
    const mantissa = code % 2 ** mantissaBits
    const exponent = Math.floor(code / 2 ** mantissaBits)
    expect(exponent).toBeLessThan(2 ** exponentBits)
    return exponent === 0
      ? mantissa * 2 ** (1 - bias - mantissaBits)
      : (2 ** mantissaBits + mantissa) * 2 ** (exponent - bias - mantissaBits)
  })

const grids = {
  // OCP E4M3: 127 finite codes, the last one (S.1111.111) is NaN
  float8: gridOf(4, 3, 7, 127),
  float4: gridOf(3, 0, 3, 8),
  // IEEE half: exponent 31 is infinity and NaN
  float16: gridOf(5, 10, 15, 31 * 1024),
  bfloat16: gridOf(8, 7, 127, 255 * 128)
} satisfies Partial<Record<Dtype, ReadonlyArray<number>>>

/** Nearest grid value by search; ties to the even code; beyond the last, the last. */
const nearest = (x: number, grid: ReadonlyArray<number>): number => {
  let low = 0
  let high = grid.length - 1
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (grid[middle]! <= Math.abs(x)) low = middle
    else high = middle
  }
  const [below, above] = [grid[low]!, grid[high]!]
  const [down, up] = [Math.abs(x) - below, above - Math.abs(x)]
  const pick = down < up ? below : down > up ? above : low % 2 === 0 ? below : above
  return Math.sign(x) * pick
}

describe("toTf32", () => {
  it("keeps ten bits of mantissa wherever float32 has more", () => {
    const half = round("float16")
    fc.assert(
      fc.property(
        fc.double({ noNaN: true, min: -2, max: 2 }),
        fc.integer({ min: -126, max: 126 }),
        (x, exponent) => {
          const near = Math.sign(x) * (1 + (Math.abs(x) % 1))
          // where float16 is normal the two are one; elsewhere by a power of two
          expect(toTf32(near * 2 ** exponent)).toBe(half(near) * 2 ** exponent)
        }
      )
    )
    expect([1 + 2 ** -11, 1 + 3 * 2 ** -11, -(2 ** -140), Infinity].map(toTf32)).toEqual([
      1,
      1 + 2 ** -9,
      -0,
      Infinity
    ])
    expect(toTf32(2 ** 128 - 2 ** 104)).toBe(Infinity)
    expect(toTf32(NaN)).toBeNaN()
  })
})

describe("round", () => {
  it("has the grids that the formats define", () => {
    expect(grids.float4).toEqual(float4Grid)
    expect(grids.float8.at(-1)).toBe(448)
    expect(grids.float16.at(-1)).toBe(65504)
    expect(maxOf).toEqual({ float4: 16, float8: 448, int8: 127 })
    for (const [dtype, grid] of Object.entries(grids)) {
      const toGrid = round(dtype as Dtype)
      for (const value of grid) {
        expect(toGrid(value)).toBe(value)
        expect(toGrid(-value)).toBe(-value)
      }
    }
  })

  it("goes to the nearest grid value, ties to the even code", () => {
    for (const [dtype, grid] of Object.entries(grids)) {
      const toGrid = round(dtype as Dtype)
      let ties = 0
      // every midpoint (all are ties), and both sides of it
      const step = Math.max(1, Math.floor(grid.length / 500))
      for (let code = 0; code + 1 < grid.length; code += step) {
        const middle = (grid[code]! + grid[code + 1]!) / 2
        const even = grid[code % 2 === 0 ? code : code + 1]!
        expect(toGrid(middle)).toBe(even)
        expect(toGrid(-middle)).toBe(-even)
        expect(toGrid(middle * (1 - 1e-12))).toBe(grid[code])
        expect(toGrid(middle * (1 + 1e-12))).toBe(grid[code + 1])
        ties++
      }
      expect(ties).toBeGreaterThanOrEqual(Math.min(grid.length - 1, 400))
      fc.assert(
        fc.property(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: -12, max: 12 }), (seed, exponent) => {
          const x = numbers(seed)() * 2 ** exponent
          if (Math.abs(x) > grid.at(-1)!) return
          expect(toGrid(x)).toBe(nearest(x, grid))
        })
      )
    }
  })

  it("bfloat16 equals rounding the bits of float32", () => {
    const bits = new Uint32Array(1)
    const value = new Float32Array(bits.buffer)
    let special = 0
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffffff }), (word) => {
        bits[0] = word
        const x = value[0]!
        if (!Number.isFinite(x)) {
          special++
          expect(round("bfloat16")(x)).toBe(x)
          return
        }
        // add half of the last kept place, less one when it is even, and cut
        bits[0] = word + 0x7fff + ((word >>> 16) & 1)
        bits[0] = bits[0]! & 0xffff0000
        expect(round("bfloat16")(x)).toBe(value[0])
      }),
      { numRuns: 5000 }
    )
    expect(special).toBeGreaterThan(0)
  })

  it("overflows to infinity or saturates, and keeps NaN", () => {
    expect(round("float16")(65519)).toBe(65504)
    expect(round("float16")(65520)).toBe(Infinity)
    expect(round("bfloat16")(-3.4e38)).toBe(-Infinity)
    expect(round("float8")(1e9)).toBe(448)
    expect(round("float4")(-Infinity)).toBe(-16)
    expect(round("int8")(-1000)).toBe(-128)
    expect(round("int8")(2.5)).toBe(2)
    expect(round("int8")(-3.5)).toBe(-4)
    expect(round("int32")(2 ** 40)).toBe(2 ** 31 - 1)
    expect(round("float32")(0.1)).toBe(Math.fround(0.1))
    for (const dtype of ["bfloat16", "float16", "float8", "float4", "float32"] as const) {
      expect(round(dtype)(Number.NaN)).toBeNaN()
      const data = Float32Array.of(0.3, -0.3)
      roundInPlace(data, dtype)
      expect([...data]).toEqual([round(dtype)(Math.fround(0.3)), round(dtype)(Math.fround(-0.3))])
    }
  })
})

const formats = ["float4", "float8", "int8"] as const

const pack = (format: (typeof formats)[number], data: Float32Array, block: number) => {
  const inp = operand([data.length], "float32")
  const kernel = kernels[`pack.${format}`]
  const shapes = kernel.shapes([inp], { block })!
  const outputs = [operand(shapes[0]!, format), operand(shapes[1]!, "float32")]
  const packed = new Float32Array(data.length)
  const scales = new Float32Array(outputs[1]!.elements)
  evaluate(kernel, [inp], [data], outputs, [packed, scales], { block })
  return { packed, scales, outputs }
}

const unpack = (
  format: (typeof formats)[number],
  packed: Float32Array,
  scales: Float32Array,
  block: number
) => {
  const out = new Float32Array(packed.length)
  evaluate(
    kernels[`unpack.${format}`],
    [operand([packed.length], format), operand([scales.length], "float32")],
    [packed, scales],
    [operand([packed.length], "float32")],
    [out],
    { block }
  )
  return out
}

const cases = fc.record({
  format: fc.constantFrom(...formats),
  seed: fc.integer({ min: 1, max: 1e6 }),
  length: fc.integer({ min: 1, max: 40 }),
  block: fc.constantFrom(0, 1, 7, 16),
  exponent: fc.integer({ min: -60, max: 60 }),
  zeros: fc.boolean()
})

const dataOf = ({
  seed,
  length,
  exponent,
  zeros
}: {
  seed: number
  length: number
  exponent: number
  zeros: boolean
}) => {
  const next = numbers(seed)
  return Float32Array.from({ length }, (_, i) => (zeros && i < 8 ? 0 : next() * 2 ** exponent))
}

describe("pack and unpack", () => {
  it("is within half a grid step of the input, block by block", () => {
    let zeroBlocks = 0
    let manyBlocks = 0
    fc.assert(
      fc.property(cases, (given) => {
        const data = dataOf(given)
        const { packed, scales } = pack(given.format, data, given.block)
        const out = unpack(given.format, packed, scales, given.block)
        if (scales.length > 1) manyBlocks++
        if (scales.includes(0)) zeroBlocks++
        const size = given.block === 0 ? data.length : given.block
        const grid = given.format === "int8" ? Array.from({ length: 128 }, (_, i) => i) : grids[given.format]
        for (const [i, x] of data.entries()) {
          const scale = scales[Math.floor(i / size)]!
          if (scale === 0) {
            expect(x).toBe(0)
            expect(out[i]).toBe(0)
            continue
          }
          const magnitude = Math.abs(x) / scale
          const above = grid.findIndex((value) => value >= magnitude)
          // the largest value of a block may lie a rounding error above the grid's end
          const gap = above <= 0 ? 0 : grid[above]! - grid[above - 1]!
          expect(Math.abs(out[i]! - x) / scale).toBeLessThanOrEqual(gap / 2 + 1e-4)
        }
      }),
      { numRuns: 300 }
    )
    expect(zeroBlocks).toBeGreaterThan(10)
    expect(manyBlocks).toBeGreaterThan(50)
  })

  it("packs its own result to the same codes, and float4 to the same scales too", () => {
    fc.assert(
      fc.property(cases, (given) => {
        const first = pack(given.format, dataOf(given), given.block)
        const second = pack(
          given.format,
          unpack(given.format, first.packed, first.scales, given.block),
          given.block
        )
        expect(second.packed).toEqual(first.packed)
        // scales of powers of two times a value are exact
        if (given.format === "float4") expect(second.scales).toEqual(first.scales)
      }),
      { numRuns: 300 }
    )
  })

  it("float4 keeps the largest value of a block exactly, and puts everything on the stated grid", () => {
    fc.assert(
      fc.property(cases, (given) => {
        const data = dataOf(given)
        const { packed, scales } = pack("float4", data, 0)
        for (const code of packed) expect(float4Grid).toContain(Math.abs(code))
        const largest = (values: Float32Array) => values.reduce((max, x) => Math.max(max, Math.abs(x)), 0)
        expect(largest(unpack("float4", packed, scales, 0))).toBe(largest(data))
      })
    )
  })

  it("counts bytes in the packed dtype", () => {
    const { outputs } = pack("float4", new Float32Array(33), 16)
    expect(outputs.map(({ sizeBytes }) => sizeBytes)).toEqual([17, 12])
    expect(pack("int8", new Float32Array(0), 16).scales.length).toBe(0)
  })

  it("does not lose a NaN or an infinity", () => {
    for (const format of formats) {
      for (const fault of [Number.NaN, Infinity, -Infinity]) {
        const { packed, scales } = pack(format, Float32Array.of(1, fault, 2, 3), 2)
        const out = unpack(format, packed, scales, 2)
        expect([...out.subarray(0, 2)]).toEqual([Number.NaN, Number.NaN])
        expect(out[3]).toBe(3)
      }
    }
  })

  it("rejects a scale tensor of the wrong size, and the wrong dtype", () => {
    const packed = operand([8], "float4")
    const scales = operand([3], "float32")
    expect(() => kernels["unpack.float4"].shapes([packed, scales], { block: 4 })).toThrow(/expected \[2\]/)
    const call = () =>
      evaluate(
        kernels["pack.bfloat16"],
        [operand([1], "float32")],
        [new Float32Array(1)],
        [operand([1], "float32")],
        [new Float32Array(1)],
        {}
      )
    expect(call).toThrow(/output 0 is float32; expected bfloat16/)
  })

  it("bfloat16 packs by rounding and unpacks exactly", () => {
    const [inp, out] = [operand([2], "float32"), operand([2], "bfloat16")]
    const packed = new Float32Array(2)
    // 1 + 2^-8 is a tie between 1 and 1 + 2^-7
    evaluate(kernels["pack.bfloat16"], [inp], [Float32Array.of(1 + 2 ** -8, -5.67)], [out], [packed], {})
    expect([...packed]).toEqual([1, -5.65625])
    const back = new Float32Array(2)
    evaluate(kernels["unpack.bfloat16"], [out], [packed], [inp], [back], {})
    expect(back).toEqual(packed)
  })
})
